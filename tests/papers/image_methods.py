"""The methods of image hashing, in the words of the recipes; see ``methods.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from models.base import Outputs, Progress
from models.centers.hash_centers import REDRAWS
from models.losses.memory_bank import MemoryBank
from tests.papers import method_parts as parts
from tests.papers.method_parts import Built

Values = dict[str, Any]
VOTED = ("nuswide", "coco")
"""Datasets on which DeepHash-pytorch lets labels vote; on others the first label counts."""


def network(built: Built) -> Values:
    """Return head, initialisation and parts of a network with one linear hash layer."""
    model, loss = built.model, built.loss
    head = model.heads["image"]
    layer = head if isinstance(head, torch.nn.Linear) else head[0]
    text = parts.linear(layer, built)
    norms = parts.of_kind(head, torch.nn.BatchNorm1d)
    trained = all(norm.affine and norm.track_running_stats for norm in norms)
    layers = "hash layer"
    values: Values = {"hash_init": parts.init(head)}
    if norms and trained and norms[0].num_features == built.K:
        layers = "hash layer, batch norm behind it"
        text += ", batch norm over the batch (trained)"
        values["head_batch_norm"] = (
            "BatchNorm1d over the bits, trained, running statistics in evaluation"
        )
    elif layer.in_features == 4096 and layer.bias is not None:
        text += " on the two pretrained 4096 layers"
    members = {
        "encoder": list(model.backbone.parameters()),
        layers: [*model.heads.parameters(), *loss.parameters()],
    }
    rates = {built.optimization.settings[g["name"]].lr for _, g in built.where.values()}
    if len(rates) == 1:
        members = {"all": [p for part in members.values() for p in part]}
    return {"hash_head": text, "parts": members, **values}


def bank(built: Built) -> str | None:
    """Return what is kept of training rows, looked at and tried."""
    banks = parts.of_kind(built.loss, MemoryBank)
    if not banks:
        return None
    rows = banks[0].rows
    start = "0" if not rows.any() else "N(0,1)" if parts.is_normal(rows, 1) else "another"
    code = torch.rand(8, built.K)
    built.loss.train()(Outputs(image_code=code), built.batch(), Progress())
    written = bool(rows[:8].any())
    shape = "training rows by bits" if rows.shape == (parts.ROWS, built.K) else "other rows"
    wrote = "rows of the batch written before the loss" if written else "not written"
    return f"{shape}, {start} at first, {wrote}"


def pairs(built: Built) -> str:
    """Return which pairs a loss over pairs has."""
    if built.config.loss.config.pairs == "memory":
        return "batch against all training rows (memory)"
    return "within the batch"


def vote(built: Built, what: str, rule: str) -> str:
    """Return the target of several labels: ``rule`` where the run does on its dataset as it says.

    ``rule`` is DeepHash-pytorch's, of all datasets.
    """
    several = built.config.loss.config.several
    if several == ("vote" if built.config.dataset_name.startswith(VOTED) else "first"):
        return rule
    return f"sign of the sum of {what}, ties by one random vector" if several == "vote" else several


RULE = (
    "sign of the sum of {}, ties by one random vector (nuswide_21, nuswide_21_m, coco); other sets "
    "by the first positive label"
)


def csq(built: Built) -> Values:
    config = built.config.loss.config
    loss: Values = {"lambda": config.lambda_quant}
    if config.centers == "hadamard":
        loss["centres"] = (
            f"Hadamard rows [H;-H]; further rows balanced random, at most {REDRAWS} redraws"
        )
        loss["multi_label"] = vote(built, "centres", RULE.format("centres"))
    else:
        loss["centres"] = f"fixed signs, {centers(config.centers)}"
        voted = "sign of the sum of centres, ties by one random vector"
        loss["multi_label"] = voted if config.several == "vote" else "first positive label"
        loss["scale_c"] = center_weight(built)
    return {**network(built), "loss": loss}


def center_weight(built: Built) -> float:
    """Return the weight of CSQ's term of centres, against binary cross-entropy by its formula."""
    batch, code = built.batch(), torch.rand(8, built.K, generator=torch.Generator().manual_seed(3))
    target = built.loss.targets(batch.label)
    plain = -(((1 + target * code.tanh()) / 2).log()).mean()
    return round(
        float(built.loss(Outputs(image_code=code), batch, Progress())["center"] / plain), 4
    )


def centers(kind: str) -> str:
    """Return how a kind of centres is called."""
    return {"bernoulli": "Bernoulli", "spread": "drawn apart from each other"}.get(kind, kind)


def dpn(built: Built) -> Values:
    config = built.config.loss.config
    share = (built.loss.centers > 0).float().mean(1)
    balanced = bool((share == 0.5).all())
    kind = "balanced" if balanced else centers(config.centers)
    loss = {
        "m": config.margin, "p": 0.5 if balanced else None,
        "targets": f"random, {kind}, {config.targets}",
        "multi_label": vote(built, "targets", RULE.format("targets")),
    }  # fmt: skip
    if config.over_bits != "mean" or config.lambda_norm:
        loss |= {"over_bits": config.over_bits, "lambda": config.lambda_norm}
    return {**network(built), "loss": loss, "memory": bank(built)}


def orthohash(built: Built) -> Values:
    config = built.config.loss.config
    letter = {"bernoulli": " (cent_init B)", "spread": " (cent_init M)"}.get(config.centers, "")
    return {
        **network(built),
        "loss": {
            "centres": f"fixed signs, {centers(config.centers)}{letter}", "m": built.loss.margin,
            "margin": config.form, "quan": config.lambda_quant, "s": config.scale,
            "multi_label": "label smoothing: cross-entropy with labels divided by their number",
        },
    }  # fmt: skip


def hashnet(built: Built) -> Values:
    config = built.config.loss.config
    own = ", the row with itself included" if config.pairs == "batch" else ""
    return {
        **network(built),
        "loss": {
            "alpha": config.alpha, "beta": f"sqrt(floor(epoch/{config.epochs_per_step}) + 1)",
            "class_balance": "mean over similar pairs plus mean over dissimilar pairs",
            "pairs": pairs(built) + own,
        },
        "memory": bank(built),
    }  # fmt: skip


def dpsh(built: Built) -> Values:
    config = built.config.loss.config
    loss = {
        "alpha": config.lambda_quant, "pairs": pairs(built),
        "quantisation": "mean squared distance to the sign",
    }  # fmt: skip
    if config.weights == "balanced":
        loss["class_balance"] = "mean over similar pairs plus mean over dissimilar pairs"
    return {**network(built), "loss": loss, "memory": bank(built)}


def dsh(built: Built) -> Values:
    margin = built.loss.margin
    loss = {
        "alpha": built.config.loss.config.lambda_quant, "pairs": pairs(built),
        "m": "2K" if margin == 2 * built.K else margin,
    }  # fmt: skip
    return {**network(built), "loss": loss, "memory": bank(built)}


def dhn(built: Built) -> Values:
    config = built.config.loss.config
    squash = "no tanh" if config.code == "output" else "tanh"
    code = "|u|" if config.code == "output" else "|tanh u|"
    loss = {
        "alpha": config.lambda_quant,
        "pairs": f"{pairs(built)}, theta = {built.loss.alpha} <u,U>, {squash}",
        "quantisation": f"mean log cosh({code} - 1)",
    }
    return {**network(built), "loss": loss, "memory": bank(built)}


def dtsh(built: Built) -> Values:
    from models.image.dtsh import HIGHEST, LOWEST

    config = built.config.loss.config
    assert config.scale == 1
    return {
        **network(built),
        "loss": {
            "alpha": config.margin, "clip": [LOWEST, HIGHEST], "lambda": config.lambda_quant,
            "pairs": "within the batch",
        },
    }  # fmt: skip


def greedyhash(built: Built) -> Values:
    config, values = built.config.loss.config, network(built)
    classifier = built.loss.classifier
    outputs = "C" if classifier.out_features == built.problem.n_classes else "?"
    bias = "with" if classifier.bias is not None else "without"
    where = built.where
    owner = {id(where[id(p)][0]) for p in built.model.parameters()}
    same = {id(where[id(p)][0]) for p in classifier.parameters()} == owner
    members = values["parts"]
    if "all" in members:
        values["parts"] = {"all, classifier on codes included": members["all"]}
    drawn = parts.init(classifier)["weight"]
    return {
        **values,
        "loss": {
            "alpha": config.lambda_quant, "power": config.power,
            "class_target": "first positive label" if config.labels == "first" else "all labels",
            "classifier": f"Linear K->{outputs} {bias} bias, {drawn}, "
            f"in {'the same' if same else 'another'} optimiser",
        },
    }  # fmt: skip


def shc(built: Built) -> Values:
    runner, loss = built.config.runner.config, built.config.loss.config
    stage = runner.classifier
    group = built.config.optim["head"]
    floor = group.schedule.config.floor if stage.floor is None else stage.floor
    twice = "cross-entropy of softmax outputs (softmax twice)"
    semantic = runner.centers == "semantic" and runner.min_distance is None
    network_values = network(built)
    return {
        **network_values,
        "hash_head": network_values["hash_head"] + " without activation",
        "loss": {
            "lambda": loss.lambda_quant, "mu": runner.mu,
            "class_epochs": stage.epochs, "class_epoch_kept": "last",
            "class_loss": twice if stage.cross_entropy == "probabilities" else "cross-entropy",
            "class_schedule": f"cosine to {group.lr * floor:g}",
            "d": "Gilbert-Varshamov crossing for K and C" if semantic else runner.min_distance,
            "similarity_masks": "true class" if runner.own_class == "label" else "predicted class",
            "similarity_pictures": "training loader, whatever its augmentation, encoder in "
            "evaluation mode" if stage.logits_of == "augmented" else "as evaluated",
        },
    }  # fmt: skip


IMAGE_METHODS: dict[str, Callable[[Built], Values]] = {
    "csq": csq, "dpn": dpn, "orthohash": orthohash, "hashnet": hashnet, "dpsh": dpsh, "dsh": dsh,
    "dhn": dhn, "dtsh": dtsh, "greedyhash": greedyhash, "shc": shc,
}  # fmt: skip
