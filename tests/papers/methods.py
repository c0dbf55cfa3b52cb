"""The method side of a recipe: from a run to the neutral values of head, loss and optimisation.

One function for each family of methods gives the values that only it knows; what all share
(optimiser, schedule, batches) is read from what was built. A dotted key is a nested one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from common.batch import Batch
from common.config.run_config import RunConfig
from dataset.loader import EpochOrder
from models.base import Outputs, Progress
from models.losses.memory_bank import MemoryBank
from tests.papers import method_parts as parts
from tests.papers.image_methods import IMAGE_METHODS
from tests.papers.method_parts import Built, dropout, init, per_modality, sections, words
from tests.papers.zero_shot_methods import ZERO_SHOT_METHODS

Values = dict[str, Any]
FAMILIES: dict[str, Callable[[Built], Values]] = {**IMAGE_METHODS, **ZERO_SHOT_METHODS}
"""Registered name of the loss → values that only its family knows, ``parts`` and ``second``."""

ABSENT: Values = {
    "head_batch_norm": "absent", "memory": None, "second_optimiser": None, "ema_update": None,
    "evaluation.code": "sign",
}  # fmt: skip
"""What a family that does not say otherwise has; entries leave such keys out."""


def method_values(config: RunConfig, classes: int, attributes: int = 0) -> Values:
    """Return the neutral values of a run, for a dataset of so many classes and attributes."""
    assert config.loss is not None
    built = parts.build(config, classes, attributes)
    values = {**ABSENT, **FAMILIES[config.loss.name](built)}
    second = values.pop("second", ())
    values |= parts.optimiser(built, values.pop("parts"), second)
    runner = config.runner.config
    return values | {
        "schedule": parts.schedule(config),
        "drop_last": runner.drop_last,
        "shuffle": shuffle(),
        "batch_size": runner.batch_size * runner.accumulate,
        "epochs": runner.epochs,
    }


def family(*losses: str) -> Callable[[Callable[[Built], Values]], Callable[[Built], Values]]:
    """Enter a function for the methods of ``losses``."""

    def enter(function: Callable[[Built], Values]) -> Callable[[Built], Values]:
        FAMILIES.update(dict.fromkeys(losses, function))
        return function

    return enter


def shuffle() -> str:
    """Return how often training rows are shuffled, by the order that the loader takes."""
    order = EpochOrder(64, 64)
    first = next(iter(order))
    order.set_epoch(1)
    return "every epoch" if sorted(first) != first != next(iter(order)) else "never"


# ---- DCMHT and its toolkit


@family("dcmht")
def dcmht(built: Built) -> Values:
    config, head = built.config.loss.config, built.model.heads["image"]
    select = built.config.model.config.head == "select"
    loss = {
        "vartheta": config.vartheta, "quan_alpha": config.quan_alpha, **_margin(built),
        "form": f"{config.similarity} l{config.power}" + (", select mechanism" if select else ""),
    }  # fmt: skip
    common = {
        "loss": loss,
        "evaluation.code": "argmax",
        **sections(built, hash_layers=built.model.heads),
    }
    if not select:
        return {**common, **attention_head(built)}
    first, bits = head.fc, head.bit_layers
    each = bits[0]
    count = parts.size(len(bits), built)
    text = (
        f"{parts.linear(first, None)}, ReLU, {count} times Linear {each.in_features}->"
        f"{each.out_features} with softmax"
    )
    fc, small = init(*(h.fc for h in built.model.heads.values())), init(head.bit_layers)
    return {
        **common,
        "hash_head": text + per_modality(built.model.heads),
        "hash_init": fc if fc == small else {"first": fc, "second": small},
    }


def _margin(built: Built) -> Values:
    """Return M and the weights of the three pair terms, measured on two rows without a label."""
    settings, width = built.config.loss.config, 2 * built.K
    if settings.similarity != "euclidean":
        return {}
    pairs = torch.zeros(2, width)
    label = torch.eye(built.problem.n_classes)[:2]
    outputs = Outputs(image_pairs=pairs, text_pairs=pairs)
    terms = built.loss(outputs, Batch(label=label, index=torch.arange(2)), Progress())
    negatives = [float(terms[f"neg_{pair}"]) for pair in ("it", "ii", "tt")]
    margin = (2 * built.K * settings.vartheta) ** (settings.power / 2)
    # one of two pairs is dissimilar, at distance 0
    weights = {round(2 * value / margin, 4) for value in negatives}
    return {
        "M": "sqrt(2*K*vartheta)",
        "weights_of_the_three_pair_terms": weights.pop() if len(weights) == 1 else sorted(weights),
    }


def attention_head(built: Built) -> Values:
    """Return the head of the toolkit, of DCMHT and TwDH."""
    image, text = built.model.heads["image"], built.model.heads["text"]
    norms = type(image.norm).__mro__, type(text.norm).__mro__
    batch_norm = torch.nn.BatchNorm1d in norms[0] and torch.nn.LayerNorm in norms[1]
    running = image.norm.track_running_stats and image.norm.affine
    last = init(image.fc, text.fc)
    attention = "PyTorch's default" if parts.default_attention(image.attention) else "another"
    return {
        "hash_head": "self-attention on one token "
        f"({image.attention.num_heads} heads), batch norm (picture) or layer norm (text), "
        f"{parts.linear(image.fc, built)}, ReLU, softmax of pairs",
        "head_batch_norm": f"picture head: BatchNorm1d over {image.norm.num_features}, trained, "
        "running statistics in evaluation; text head: layer norm"
        if batch_norm and running
        else "another",
        "hash_init": {
            "weight": f"{last['weight']} (last layer), attention as {attention}",
            "bias": last["bias"],
        },
    }


@family("twdh")
def twdh(built: Built) -> Values:
    config, model = built.config.loss.config, built.model
    transform = built.config.runner.config.transform
    files = built.config.model.config.files is not None
    head = model.heads["image"]
    return {
        **attention_head(built),
        "hash_head": f"as the toolkit's DCMHT, with {head.fc.out_features // 2} bits",
        "loss": {
            "L_long": model.config.long_bits, "quan_alpha": config.quan_alpha,
            "low_rate": config.low_rate,
            "centres": "released files" if files else "drawn by the run's seed",
            "transforms": ("released files" if transform == "files" else transform)
            + ", not trained with the model",
        },
        "evaluation.code": "argmax",
        **sections(built, hash_layers=model.heads),
    }  # fmt: skip


@family("baseline")
def baseline(built: Built) -> Values:
    from models.cross_modal.baseline import LARGEST_PRODUCT as LARGEST

    heads = built.model.heads
    return {
        "hash_head": words(heads["image"], built) + per_modality(heads),
        "hash_init": init(heads),
        "loss": {
            "dropout": dropout(heads),
            "form": "likelihood of pairs, "
            f"theta = 0.5*clamp(<a,c>, -{LARGEST:g}, {LARGEST:g})",
            "quan_alpha": built.config.loss.config.quan_alpha,
        },
        **sections(built, hash_layers=heads),
    }  # fmt: skip


@family("dimch")
def dimch(built: Built) -> Values:
    config, heads = built.config.loss.config, built.model.heads
    convolutions = [head.conv for head in heads.values()]
    conv = convolutions[0]
    he = all(
        parts.is_normal(c.weight.detach(), (2 / c.weight[0].numel()) ** 0.5) for c in convolutions
    )
    linear = init(*(head.mlp for head in heads.values()))
    biases = {linear["bias"], *(0 if not c.bias.any() else "another" for c in convolutions)}
    return {
        "hash_head": f"Conv1d tokens->{conv.out_channels} (kernel {conv.kernel_size[0]}), ReLU, "
        f"{words(heads['image'].mlp, built)}, mean over instances, tanh{per_modality(heads)}",
        "hash_init": {
            "weight": f"linear {linear['weight']}, convolution "
            + ("kaiming_normal fan_in" if he else "another"),
            "bias": biases.pop() if len(biases) == 1 else sorted(map(str, biases)),
        },
        "loss": {
            "M_instances": conv.out_channels, "den": config.denominator,
            "distance": config.similarity, "diversity_weight": config.unif_alpha,
            "dropout": dropout(heads), "hash_triplet_margin": config.triplet_margin,
            "hash_triplet_weight": config.hash_triplet_alpha, "mmd_gamma": config.mmd_gamma,
            "mmd_weight": config.mmd_alpha, "quan_weight": config.quan_alpha,
            "rho": config.temperature_txt_scale, "tau": config.temperature,
            "token_margin": config.token_triplet_margin, "token_weight": config.triplet_alpha,
        },
        **sections(built, hash_layers=heads),
    }  # fmt: skip


@family("umoed")
def umoed(built: Built) -> Values:
    from models.layers.soft_moe import SoftMoE

    config, decoder = built.config.loss.config, built.model.decoder
    queries, width = decoder.queries.shape
    layer, moe = decoder.layers[0], parts.of_kind(decoder, SoftMoE)
    mine = len(decoder.layers)
    sharp = config.distance == "cosine"
    attentions = parts.of_kind(decoder, torch.nn.MultiheadAttention)
    default = all(map(parts.default_attention, attentions))
    linear = init(decoder)
    experts = all(
        parts.is_uniform(part.phi.detach(), (part.phi.shape[1] * part.phi.shape[2]) ** -0.5)
        and parts.is_uniform(part.weight.detach(), (part.weight[0].numel()) ** -0.5)
        for part in moe
    )
    words_of = 2 ** (built.K // queries)
    return {
        "hash_head": f"learned queries, {mine} decoder layers with a soft mixture of experts, "
        f"Linear {width}->{'V' if decoder.classifier.out_features == words_of else '?'}",
        "hash_init": {
            "weight": (linear["weight"] if default else "another") + "; experts and slots "
            + ("kaiming_uniform a=sqrt(5)" if experts else "another"),
            "bias": linear["bias"],
        },
        "loss": {
            "M_queries": {str(built.K): queries}, "T_x": config.sharpness, "V": "2^(K/M)",
            "decoder_heads": layer.self_attention.num_heads, "decoder_layers": mine,
            "distance": "pairwise" if sharp else config.distance, "dropout": dropout(decoder),
            "experts": len(moe[0].weight), "slots_per_expert": moe[0].phi.shape[2],
            "modules": "one shared by both modalities", "triplet_alpha": config.triplet_alpha,
            "triplet_margin": config.token_triplet_margin, "unif_alpha": config.unif_alpha,
        },
        "evaluation.code": "argmax over V, written as K/M bits, most significant first",
        **sections(built, hash_layers=[*built.model.project.parameters(), *decoder.parameters()]),
    }  # fmt: skip


# ---- proxies


@family("dsph")
def dsph(built: Built) -> Values:
    config, heads, loss = built.config.loss.config, built.model.heads, built.loss
    kind = (2 / built.problem.n_classes) ** 0.5
    values = loss.proxies.detach()
    drawn = "kaiming_normal fan_out" if parts.is_normal(values, kind) else "another"
    trained = "trained" if loss.proxies.requires_grad else "not trained"
    threshold = {str(built.K): loss.threshold}
    if config.threshold is None:
        threshold["rule"] = "1 - 2 d(K, ceil(log2 C)) / K by the code table"
    return {
        "hash_head": words(heads["image"], built) + per_modality(heads),
        "hash_init": init(heads),
        "loss": {
            "alpha": config.alpha, "theta": threshold,
            "proxies": f"{drawn}, seed {config.proxy_seed}, {trained}",
        },
        "second_optimiser": parts.second_optimiser(built, "proxies"),
        "second": [loss.proxies],
        **sections(built, hash_layers=heads),
    }  # fmt: skip


@family("dnph")
def dnph(built: Built) -> Values:
    config, model, proxies = built.config.loss.config, built.model, built.loss.proxies
    drawn = "N(0,1)/8" if parts.is_normal(proxies.detach(), 1 / 8) else "another"
    trained = "trained" if proxies.requires_grad else "not trained"
    classifier = model.classifiers["image"]
    outputs = "C" if classifier.out_features == built.problem.n_classes else "?"
    return {
        "hash_head": f"{words(model.heads['image'], built)}, and Linear "
        f"{classifier.in_features}->{outputs}" + per_modality(model.heads, "one pair"),
        "hash_init": init(model.heads, model.classifiers),
        "loss": {
            "alpha": config.noise_alpha, "class_target": "first positive label",
            "mrg": config.margin, "proxies": f"{drawn}, {trained}",
        },
        "second_optimiser": parts.second_optimiser(built, "proxies"),
        "second": [p for p in (proxies,) if proxies.requires_grad],
        **sections(built, hash_layers=model.heads, class_layers=model.classifiers),
    }  # fmt: skip


# ---- MITH, VTPH


def _concept(built: Built) -> Values:
    """Return what both have of head, loss and memory."""
    config, head = built.config.loss.config, built.model.head
    banks = parts.of_kind(built.loss, MemoryBank)
    shapes = {tuple(bank.rows.shape) for bank in banks}
    normal = all(parts.is_normal(bank.rows, 1) for bank in banks)
    rows = "training rows by bits" if shapes == {(parts.ROWS, built.K)} else "other rows"
    count = {4: "four", 1: "one"}.get(len(banks), str(len(banks)))
    return {
        "hash_init": init(*head.transformers.values(), head.encoder),
        "memory": f"{count} matrices of {rows}, {'N(0,1)' if normal else 'another'} at first, "
        + ("rows of the batch written before the loss" if _written(built) else "not written"),
        "loss": {
            "lambda": config.pooled_share, "intra_weight": config.lambda_intra,
            "res_mlp_layers": len(head.encoder.blocks), "top_k": head.top_k,
            "transformer_layers": len(head.transformers["image"].blocks), "dropout": dropout(head),
        },
    }  # fmt: skip


def _written(built: Built) -> bool:
    """Whether a training step puts the codes of the batch into its memory banks."""
    generator = torch.Generator().manual_seed(2)
    outputs = Outputs()
    for name in built.config.loss.entry.needs:
        width = built.K if name.endswith("code") else 8
        shape = (8, built.K, 8) if name.endswith("concepts") else (8, width)
        outputs[name] = torch.rand(shape, generator=generator)
    before = {name: bank.rows.clone() for name, bank in built.loss.memories.items()}
    built.loss.train()(outputs, built.batch(), Progress())
    new = all(
        torch.equal(bank.rows[:8], outputs[name])
        for name, bank in built.loss.memories.items()
    )  # fmt: skip
    for name, bank in built.loss.memories.items():
        bank.rows.copy_(before[name])
    return new


@family("mith")
def mith(built: Built) -> Values:
    config, model, common = built.config.loss.config, built.model, _concept(built)
    loss = common["loss"] | {
        "alpha": config.alpha, "beta": config.lambda_inter, "gamma": config.lambda_quant,
        "delta": config.lambda_contrast, "mu": config.lambda_distill,
        "temperature": config.temperature,
    }  # fmt: skip
    modules = [*model.head.parameters(), *model.projections.parameters()]
    return {
        **common,
        "hash_head": "GCL, LTA, LCT, bitwise layers; code by the sum of class and token codes",
        "loss": loss,
        **sections(built, hash_modules=modules),
    }


@family("vtph")
def vtph(built: Built) -> Values:
    from models.cross_modal.vtph import JEFFREYS_GAMMA

    config, model, common = built.config.loss.config, built.model, _concept(built)
    gamma = JEFFREYS_GAMMA if config.gamma is None else config.gamma
    loss = common["loss"] | {
        "alpha": config.lambda_inter, "beta": config.lambda_quant, "zeta": config.lambda_contrast,
        "gamma": gamma if config.affinity == "jeffreys_mean" else f"{config.affinity}",
        "temperature": f"{config.temperature} + gamma * affinity",
        "triplet_margin": config.margin, "adapter_dropout": dropout(model.prompts.adapter),
    }  # fmt: skip
    return {
        **common,
        "hash_head": "as MITH, behind the prompting modules",
        "loss": loss,
        **sections(built, hash_modules=model.head, prompting_modules=model.prompts),
    }
