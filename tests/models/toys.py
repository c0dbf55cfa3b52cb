"""Separable toy features and their task, for the tests that are swept over registries."""

from __future__ import annotations

import torch
from torch import Tensor

from common.batch import Batch, Features
from common.config import schema
from common.config.run_config import misfit
from common.problem import Problem
from common.registry import LOSSES, MODELS
from models.backbones.base import CachedBackbone
from models.base import HashLoss, HashModel, TrainFeatures
from utils.errors import UserError

WIDTH, ROWS, CLASSES = 32, 24, 4
BITS = (16, 48, 64)
MODALITIES = ("image", "text")
TOKENS = {"image": 5, "text": 7}
LIGHT = {  # model → settings that spare minutes
    "umoed": {"layers": 2, "feedforward": 64},
    "pixel": {"embedding": 8, "text": {"layers": 1, "width": 8, "heads": 2}},
}


def toy_labels(multi: bool, classes: int = CLASSES) -> Tensor:
    """Return [N,C]: one label for each row, and a second one for a third of them if ``multi``."""
    rows = torch.arange(ROWS)
    labels = torch.zeros(ROWS, classes)
    labels[rows, rows % classes] = 1
    if multi:
        second = rows[rows % 3 == 0]
        labels[second, (second // 3) % classes] = 1
    return labels


def toy_batch(multi: bool = False, classes: int = CLASSES) -> Batch:
    """Return N rows whose features (pooled, tokens, mask) are class means plus a little noise."""
    generator = torch.Generator().manual_seed(3)
    label = toy_labels(multi, classes)
    features = {}
    for modality, length in TOKENS.items():
        means = torch.randn(classes, WIDTH, generator=generator)
        tokens = (label @ means)[:, None] + 0.3 * torch.randn(
            ROWS, length, WIDTH, generator=generator
        )  # [N,L,D]
        words = 2 + torch.arange(ROWS) % (length - 1)
        hidden = torch.arange(length) >= words[:, None]  # [N,L]
        mask = hidden if modality == "text" else None
        features[f"{modality}_features"] = Features(tokens.mean(1), tokens, mask)
    return Batch(label=label, index=torch.arange(ROWS), **features)


def take(batch: Batch, rows: slice | list[int]) -> Batch:
    """Return some rows of a batch of features."""
    parts = {}
    for modality in MODALITIES:
        values = batch.features(modality)
        kept = None if values is None else [None if v is None else v[rows] for v in values]
        parts[f"{modality}_features"] = None if kept is None else Features(*kept)
    return Batch(label=batch.label[rows], index=batch.index[rows], **parts)


def toy_problem(bits: int, multi: bool = False, classes: int = CLASSES, seed: int = 0) -> Problem:
    """Return the task of :func:`toy_batch`."""
    generator = torch.Generator().manual_seed(seed)
    return Problem(
        bits=bits, n_classes=classes, n_train=ROWS, multi_label=multi,
        class_names=tuple(f"class {c}" for c in range(classes)),
        train_labels=toy_labels(multi, classes),
        attributes=torch.rand(classes, 6, generator=torch.Generator().manual_seed(5)),
        attribute_names=tuple(f"attribute {a}" for a in range(6)),
        seen_classes=tuple(range(classes)), generator=generator,
    )  # fmt: skip


def make_model(
    name: str,
    problem: Problem,
    seed: int = 0,
    modalities: tuple[str, ...] = MODALITIES,
    **keys: object,
) -> HashModel:
    """Build a model with its default settings, or lighter ones, on cached features, and fit it."""
    entry = MODELS.get(name)
    wanted = entry.target.modalities or modalities
    widths = {modality: WIDTH for modality in wanted}
    torch.manual_seed(seed)
    backbone = CachedBackbone(widths, widths, "toy", TOKENS)
    with accepted_refusal(problem):
        config = schema.build(entry.config, {**LIGHT.get(name, {}), **keys}, "model", str)
        model = entry.target(config, problem, backbone)
    if model.needs_fit:
        batch = toy_batch(problem.multi_label, problem.n_classes)
        pooled = {m: batch.features(m).pooled if m in wanted else None for m in MODALITIES}
        model.fit(TrainFeatures(pooled["image"], pooled["text"], batch.label))
    return model


def make_loss(name: str, problem: Problem, seed: int = 0) -> HashLoss:
    """Build a loss with its default settings."""
    entry = LOSSES.get(name)
    torch.manual_seed(seed)
    with accepted_refusal(problem):
        return entry.target(schema.build(entry.config, {}, "loss", str), problem)


class Refused(Exception):  # noqa: N818 - no error: a right answer, see conftest.py
    """A constructor refused, in a sentence, a task that makes no sense."""


class accepted_refusal:  # noqa: N801 - reads as a statement
    """A constructor may refuse a task that makes no sense, in a sentence; common sizes never."""

    def __init__(self, problem: Problem) -> None:
        self.common = problem.bits in BITS and problem.n_classes > 1

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, UserError) and not self.common:
            assert str(error).endswith("."), "a sentence is needed"
            raise Refused(str(error)) from error


def fitting_pairs() -> list[tuple[str, str]]:
    """Return (loss, model) for all that fit and have something to train."""
    pairs = []
    for loss in LOSSES.names():
        for model in MODELS.names():
            if misfit(MODELS.get(model), LOSSES.get(loss)) is not None:
                continue
            if any(p.requires_grad for p in make_model(model, toy_problem(16)).parameters()):
                pairs.append((loss, model))
    return pairs
