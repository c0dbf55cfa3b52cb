"""PIXEL and PZSH, in the words of the recipes; see ``methods.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tests.papers import method_parts as parts
from tests.papers.method_parts import Built, init, sections, words

Values = dict[str, Any]


def pixel(built: Built) -> Values:
    from models.text.sentence_encoder import RANDOM
    from models.zero_shot.pixel import SAME_CLASS

    config, model, loss = built.config.loss.config, built.model, built.loss
    text = built.config.model.config.text
    released = config.variant == "released"
    start = loss.text_scale.item()
    origin = "drawn at random" if text.weights == RANDOM else "pretrained"
    named = {
        "hash layer, class vectors": [*model.hash_head.parameters(), loss.centroids],
        "text encoder, text layers, kappa": [
            *model.encoder.parameters(), *model.text_attributes.parameters(), loss.text_scale,
        ],
        "attribute convolution and attribute layer": [*model.image_attributes.parameters()],
    }  # fmt: skip
    return {
        "hash_head": f"{parts.linear(model.hash_head, built)}, identity",
        "hash_init": init(model.hash_head),
        "loss": {
            "attributes": loss.attributes.shape[1], "kappa_init": start, "m": config.margin,
            "margin": {"cosine": "cosface", "arc": "arcface"}[config.form], "s": config.scale,
            "same_class_factor": SAME_CLASS if released else f"{SAME_CLASS}, of squares",
            "text_encoder": f"{text.layers} layers, {origin}",
            "w_se": config.w_semantic, "w_tr": config.w_regression,
        },
        **sections(built, **named),
    }  # fmt: skip


def pzsh(built: Built) -> Values:
    config, model, bank = built.config.loss.config, built.model, built.loss.memory
    normal = "N(0,1)" if parts.is_normal(bank.rows, 1) else "another"
    moving = [
        *model.backbone.parameters(),
        *model.projection.parameters(),
        *model.head.parameters(),
    ]
    return {
        "hash_head": words(model.head, built),
        "hash_init": init(model.head),
        "loss": {
            "alpha": config.alpha, "beta": config.beta, "centre_seed": config.center_seed,
            "lambda_q": config.lambda_quant, "m_ema": model.config.momentum,
            "tau": config.temperature, "warmup_epochs": config.proxy_warmup,
        },
        "memory": f"training rows by bits, {normal} at first"
        if tuple(bank.rows.shape) == (parts.ROWS, built.K)
        else "other rows",
        "ema_update": _twin(built),
        "parts": {"all of the trained encoder and head": moving},
    }  # fmt: skip


@torch.no_grad()
def _twin(built: Built) -> str:
    """Return when the twin moves, by what a batch does to it."""
    model, moves = built.model, {}
    for training in (True, False):
        model.head[0].weight.add_(1)
        before = model.twin["head"][0].weight.clone()
        model.train(training)
        model(built.batch()) if training else model.encode(built.batch(), "image")
        moves[training] = not torch.equal(before, model.twin["head"][0].weight)
    return {
        (True, True): "before every forward pass of the twin, in evaluation too",
        (True, False): "before every forward pass of the twin, in training",
    }.get((moves[True], moves[False]), "never")


ZERO_SHOT_METHODS: dict[str, Callable[[Built], Values]] = {"pixel": pixel, "pzsh": pzsh}
