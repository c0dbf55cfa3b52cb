"""What an encoder costs, measured without weights and without arithmetic.

The network is built on PyTorch's ``meta`` device, where tensors have shapes and no content: two
blank rows are encoded there, floating-point operations and the bytes that the backward pass keeps
are counted. That takes some tenths of a second and no memory, whatever the size of the network.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from models.backbones.build import build_backbone, frozen_modalities

_ROWS = 2  # batch norms refuse one
_WORDS = 32  # of a text, where the encoder does not say
PROBE_S = 0.4  # seconds that the rate is measured for
_SIDE = {"cpu": 1024, "cuda": 8192}  # of the matrices that are multiplied


@dataclasses.dataclass(frozen=True)
class EncoderCost:
    """What one encoder costs.

    Attributes:
        size: side of a picture in pixels; 0 for an encoder of texts alone.
        parameters: in all; trained: of them, those that are trained.
        flops: modality → floating-point operations to encode one row; a modality that could not be
            measured is left out, here and below.
        kept: modality → bytes that the backward pass keeps of one row, in float32; 0 where frozen.
        widths: modality → numbers of a pooled feature.
        tokens: modality → numbers of the token features of a row.
    """

    size: int
    parameters: int
    trained: int
    flops: dict[str, float]
    kept: dict[str, float]
    widths: dict[str, int]
    tokens: dict[str, int]

    @property
    def is_frozen(self) -> bool:
        """Whether nothing of it is trained."""
        return not self.trained


def measure_encoder(name: str, config: Any, modalities: tuple[str, ...]) -> EncoderCost | None:
    """Return what an encoder costs; None where it cannot be built without its weights."""
    changes = {"weights": "random"} if hasattr(config, "weights") else {}
    try:
        with _quiet(), torch.device("meta"):
            encoder = build_backbone(name, dataclasses.replace(config, **changes), modalities)
            return _measure(encoder, modalities, getattr(config, "max_words", _WORDS))
    except (
        Exception
    ):  # a library may want content where there is none; an estimate is worth no stop
        return None


def _measure(encoder: Any, modalities: tuple[str, ...], words: int) -> EncoderCost:
    from torch.utils.flop_counter import FlopCounterMode

    size = encoder.image_input.size if encoder.image_input is not None else 0
    blank = torch.zeros(_ROWS, words, dtype=torch.long)
    inputs = {
        "image": lambda: encoder.encode_image(torch.zeros(_ROWS, 3, size, size), tokens=True),
        "text": lambda: encoder.encode_text(blank, torch.zeros_like(blank).bool(), tokens=True),
    }
    frozen = frozen_modalities(encoder)
    flops, kept, tokens = {}, {}, {}
    for modality in modalities:
        counter = FlopCounterMode(display=False)
        try:
            with _kept_bytes(encoder) as total, counter:
                features = inputs[modality]()
        except RuntimeError:  # some text towers look at their mask, which has no content here
            continue
        flops[modality] = counter.get_total_flops() / _ROWS
        kept[modality] = 0.0 if modality in frozen else sum(total.values()) / _ROWS
        tokens[modality] = 0 if features.tokens is None else features.tokens[0].numel()
    parameters = list(encoder.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    number, widths = sum(p.numel() for p in parameters), dict(encoder.widths)
    return EncoderCost(size, number, trained, flops, kept, widths, tokens)


@contextlib.contextmanager
def _kept_bytes(module: nn.Module) -> Iterator[dict[int, int]]:
    """Yield storage → bytes of all that autograd keeps in the block, parameters left out."""
    own = {p.untyped_storage()._cdata for p in module.parameters()}
    total: dict[int, int] = {}
    alive: list[Tensor] = []  # so that no storage takes the place of a former one

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            total[storage._cdata] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield total


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep libraries and our own warning of random weights silent."""
    log = logging.getLogger("hashing")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        log.setLevel(level)


def matrix_rate(device: torch.device, seconds: float = PROBE_S) -> float:
    """Return the floating-point operations a second of float32 matrix products on ``device``."""
    side = _SIDE[device.type]
    one, done = torch.ones(side, side, device=device), 0
    _ = one @ one
    _wait(device)
    start = time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds or not done:
        _ = one @ one
        _wait(device)
        done += 1
    return done * 2 * side**3 / max(spent, 1e-9)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
