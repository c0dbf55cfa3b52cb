"""What the releases' input code makes of texts: token ids, drawn captions, hidden words."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dataset.loader import SplitView, ViewInputs, flatten_captions
from dataset.sources.cross_modal_protocols import choices
from models.backbones.open_clip import clip_tokenize
from models.text.word_pieces import WordPieces, clean, hide_once, padded
from tests.golden.harness import Case, GoldenError, adapter
from tests.helpers import SHARED

VOCABULARY = SHARED / "weights" / "all-MiniLM-L6-v2" / "vocab.txt"  # bert-base-uncased's


def code_points(texts: Any, recorded: NDArray[Any]) -> NDArray[np.uint32]:
    """Return texts as the recordings hold them: a row of code points each, zero-padded."""
    array = np.array(texts, dtype=str)
    width = max(recorded.shape[-1], array.dtype.itemsize // 4)
    points = array.astype(f"<U{width}")[..., None].view("uint32")
    return points if points.size else np.zeros((*array.shape, width), np.uint32)


def equal_texts(case: Case, key: str, texts: Any) -> None:
    """Compare texts exactly."""
    case.equal(key, code_points(texts, case.array(key)))


def compare_ids(case: Case, captions: list[str], name: str = "ids") -> None:
    """Compare ids and, where recorded, hidden positions at every length.

    The releases hide every id 0, thus also a "!" in a caption; ours hides what follows the end and
    must not hide such a "!". Everything else of the mask is compared.
    """
    for length in case.cfg("words"):
        ids, mask = clip_tokenize(length)(captions)
        case.equal(f"out_{name}_{length}", ids)
        key = f"out_hidden_{length}"
        if name == "ids" and key in case:
            literal = (ids == 0) & ~(torch.arange(length) > ids.argmax(1, keepdim=True))
            if (mask & literal).any():
                raise GoldenError(f"{case.source}: a literal '!' is hidden as if it were padding")
            case.equal(key, mask | literal)
    first, last = int(ids[0, 0]), int(ids.max())
    case.agree("start", first)
    case.agree("end", last)
    case.agree("pad", 0)


@adapter("pipeline_text_dcmht", "pipeline_text_toolkit", not_read={"cfg_draw": "words"})
def drawn_captions(case: Case) -> None:
    """Ids at both lengths; which caption each access draws, and its ids.

    Draws of our training depend on (seed, epoch, position) alone, so they are compared with the
    release's generator in the product's function for it, and the ids with the draws given.
    """
    compare_ids(case, [str(text) for text in case.array("in_captions")])
    many, counts = case.array("in_many"), case.array("in_many_count")
    texts = [[str(text) for text in row[:n]] for row, n in zip(many, counts, strict=True)]
    flat, offsets = flatten_captions(texts)
    order = case.array("in_order")
    for part in ("train", "query"):
        drawn = choices(counts[order].tolist(), random.Random(case.cfg("python_seed")))
        case.equal(f"out_{part}_choice", drawn)
        ids, mask = clip_tokenize(case.array(f"out_{part}_ids").shape[1])(flat)
        first = ViewInputs(tokens=(ids, mask), caption_offsets=offsets + 0)
        view = SplitView(order, np.ones((len(texts), 1)), first)
        own = view.__getitems__(range(len(order))).text
        chosen = ids[torch.as_tensor(offsets[order] + np.array(drawn))]
        assert own is not None
        if not torch.equal(own[np.array(drawn) == 0], chosen[np.array(drawn) == 0]):
            raise GoldenError(f"{case.source}: the first caption of a row is another one here")
        case.equal(f"out_{part}_ids", chosen)


@adapter("pipeline_text_mith")
def mith_texts(case: Case) -> None:
    """Ids and hidden positions at every length."""
    compare_ids(case, [str(text) for text in case.array("in_captions")])


@adapter("pipeline_text_vtph")
def vtph_texts(case: Case) -> None:
    """Ids and hidden positions, and the ids of the second captions: the same ones from the end."""
    captions = [str(text) for text in case.array("in_captions")]
    compare_ids(case, captions)
    compare_ids(case, captions[::-1], "image_caption_ids")


@adapter("pipeline_text_pixel", not_read={"cfg_note": "words"})
def pixel_texts(case: Case) -> None:
    """Cleaned sentences, word pieces after the fixed beginning, before and after the hiding."""
    if not VOCABULARY.is_file():
        pytest.skip("../shared/weights/all-MiniLM-L6-v2 is absent: no vocabulary of word pieces")
    pieces, length = WordPieces(VOCABULARY), case.cfg("words")
    cleaned = [clean(str(sentence)) for sentence in case.array("in_sentences")]
    equal_texts(case, "out_cleaned", cleaned)
    ids = [pieces(sentence) for sentence in cleaned]
    rows = [padded(row, pieces, length) for row in ids]
    case.equal("out_ids_unmasked", [row for row, _ in rows])
    case.equal("out_attention", [attended for _, attended in rows])
    case.agree("mask_id", pieces.mask_id)
    generator = random.Random(case.cfg("python_seed"))
    shares = {"hidden": case.cfg("mask_share"), "swapped": case.cfg("replace_share")}
    hidden = [
        hide_once(row, generator, pieces.mask_id, len(pieces.vocabulary), **shares) for row in ids
    ]
    case.equal("out_ids_masked", [padded(row, pieces, length)[0] for row in hidden])
