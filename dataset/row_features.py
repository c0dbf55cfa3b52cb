"""Features of rows that were computed before: their arrays, checked, and rows of them."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from common.batch import MODALITIES
from dataset.feature_files import Arrays, pieces
from utils.errors import UserError
from utils.files import digest

log = logging.getLogger("hashing")
FEATURE_NAMES = tuple(
    name for m in MODALITIES for name in (m, f"{m}_tokens", f"{m}_mask")
) + ("text_offsets",)  # fmt: skip
SHOWN = 5  # rows with NaN or infinity, in a message


class FeatureArrays(NamedTuple):
    """Features of one modality: N pictures, or T captions; perhaps memory-mapped."""

    pooled: np.ndarray  # [N,D]
    tokens: np.ndarray | None = None  # [N,L,D']
    mask: np.ndarray | None = None  # bool [N,L], True where a token is hidden (padding)


@dataclasses.dataclass(frozen=True)
class RowFeatures:
    """Features of the rows of a dataset.

    Attributes:
        arrays: modality → its features.
        fingerprint: hash of what they are.
        caption_offsets: int64 [N+1]: row i has the captions offsets[i]..[i+1]-1; None: one each.
    """

    arrays: Mapping[str, FeatureArrays]
    fingerprint: str
    caption_offsets: np.ndarray | None = None

    def __len__(self) -> int:
        if self.caption_offsets is not None:
            return len(self.caption_offsets) - 1
        return len(next(iter(self.arrays.values())).pooled)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that there are features of."""
        return tuple(m for m in MODALITIES if m in self.arrays)

    def take(self, rows: np.ndarray) -> RowFeatures:
        """Return the features of ``rows`` [n], copied."""
        arrays, offsets = {}, self.caption_offsets
        for modality, parts in self.arrays.items():
            chosen = rows
            if modality == "text" and offsets is not None:
                chosen = np.concatenate([np.arange(offsets[r], offsets[r + 1]) for r in rows])
            arrays[modality] = FeatureArrays._make(p if p is None else p[chosen] for p in parts)
        if offsets is not None:
            offsets = np.cumsum([0, *(offsets[rows + 1] - offsets[rows])])
        return RowFeatures(arrays, digest(self.fingerprint, rows.tobytes()), offsets)


def row_features(arrays: Arrays, fingerprint: str, owner: str) -> RowFeatures:
    """Return the features among ``arrays``, with their shapes and values checked.

    Args:
        arrays: by their names in :data:`FEATURE_NAMES`.
        fingerprint: of the files.
        owner: of the arrays, in messages.

    Raises:
        UserError: none, shapes that do not fit, NaN or infinity, masks that are none.
    """
    arrays, found = dict(arrays), {}
    offsets = _flatten_captions(arrays, owner)
    for modality in MODALITIES:
        extra = [name for name in (f"{modality}_tokens", f"{modality}_mask") if name in arrays]
        if modality not in arrays:
            if extra:
                raise UserError(f"'{owner}' has {extra[0]}, but no '{modality}' [N,D]; add it.")
            continue
        pooled = _numbers(arrays[modality], modality, "[N,D]", owner)
        tokens, mask = (arrays.get(f"{modality}_{part}") for part in ("tokens", "mask"))
        if tokens is not None:
            tokens = _numbers(tokens, f"{modality}_tokens", "[N,L,D]", owner)
            _same_rows({modality: len(pooled), f"{modality}_tokens": len(tokens)}, owner)
        if mask is not None:
            mask = _mask(mask, modality, tokens, owner)
        found[modality] = FeatureArrays(pooled, tokens, mask)
    if not found:
        raise UserError(
            f"'{owner}' has neither 'image' nor 'text'; features are expected under these names, "
            "[N,D] each."
        )
    features = RowFeatures(found, fingerprint, offsets)
    if "image" in found:
        rows = {"image": len(found["image"].pooled)}
        if "text" in found:
            captions = len(found["text"].pooled)
            rows["text"] = captions if offsets is None else len(offsets) - 1
        _same_rows(rows, owner)
    return features


def _flatten_captions(arrays: Arrays, owner: str) -> np.ndarray | None:
    """Make captions rows of their own, in ``arrays``; return their offsets, None for one each."""
    text, offsets = arrays.get("text"), arrays.get("text_offsets")
    if text is None:
        return None
    if text.ndim != 3:
        return None if offsets is None else _offsets(offsets, len(text), owner)
    if offsets is not None:
        raise UserError(
            f"'{owner}': text of shape {text.shape} has as many captions for every row, so "
            "text_offsets is one too many; leave it out, or give text [T,D]."
        )
    rows, captions = text.shape[:2]
    for name in ("text", "text_tokens", "text_mask"):
        array = arrays.get(name)
        if array is None:
            continue
        if array.shape[:2] != (rows, captions):
            raise UserError(
                f"'{owner}': text has shape {text.shape} and {name} {array.shape}; the first two, "
                "rows and captions, must agree."
            )
        arrays[name] = array.reshape(rows * captions, *array.shape[2:])
    return np.arange(0, rows * captions + 1, captions)


def _offsets(offsets: np.ndarray, captions: int, owner: str) -> np.ndarray:
    whole = offsets.ndim == 1 and offsets.dtype.kind in "iu" and len(offsets) > 1
    if not whole or offsets[0] != 0 or offsets[-1] != captions or (np.diff(offsets) < 1).any():
        raise UserError(
            f"'{owner}': text_offsets must rise from 0 to the {captions:,} captions of text, by at "
            "least one a row: [N+1] whole numbers, where row i has captions offsets[i] to "
            "offsets[i+1]-1."
        )
    return offsets.astype(np.int64)


def _numbers(array: np.ndarray, name: str, shape: str, owner: str) -> np.ndarray:
    """Return an array of finite numbers of the wanted number of axes."""
    if array.ndim != shape.count(",") + 1 or array.dtype.kind not in "fiu" or 0 in array.shape:
        raise UserError(
            f"'{owner}': {name} is {array.dtype} of shape {array.shape}; numbers {shape} are "
            "needed, at least one of each."
        )
    if array.dtype == np.float16:
        log.info("'%s': %s is float16 and is computed with in float32", owner, name)
    if array.dtype.kind == "f":
        bad = [
            start + np.flatnonzero(~np.isfinite(part).reshape(len(part), -1).all(1))
            for start, part in pieces(array)
        ]
        rows = np.concatenate(bad)
        if len(rows):
            first = ", ".join(map(str, rows[:SHOWN])) + (", …" if len(rows) > SHOWN else "")
            raise UserError(
                f"'{owner}': {len(rows):,} of {len(array):,} rows of {name} hold NaN or infinity, "
                f"rows {first}; compute them again, or leave these rows out."
            )
    return array


def _mask(mask: np.ndarray, modality: str, tokens: np.ndarray | None, owner: str) -> np.ndarray:
    """Return the mask of padding, bool [N,L]."""
    name = f"{modality}_mask"
    if tokens is None:
        raise UserError(f"'{owner}' has {name}, but no {modality}_tokens that it could hide.")
    values = np.asarray(mask)
    if values.shape != tokens.shape[:2] or not np.isin(values, (0, 1)).all():
        raise UserError(
            f"'{owner}': {name} is {mask.dtype} of shape {mask.shape}; 0 and 1 of shape "
            f"{tokens.shape[:2]} are needed, as {modality}_tokens has rows and tokens."
        )
    hidden = values.astype(bool)
    whole = np.flatnonzero(hidden.all(1))
    if len(whole):
        raise UserError(
            f"'{owner}': {name} hides every token of {len(whole):,} rows, row {whole[0]} first; 1 "
            "means a hidden token (padding), so an attention mask has to be turned round."
        )
    return hidden


def _same_rows(rows: Mapping[str, int], owner: str) -> None:
    if len(set(rows.values())) > 1:
        told = ", ".join(f"{name} has {count:,}" for name, count in rows.items())
        raise UserError(f"'{owner}': numbers of rows differ: {told}; they must agree.")
