"""A run's model, loss and optimisers built small, and what they are in the words of the recipes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from common.batch import Batch, Features
from common.config.run_config import RunConfig
from common.problem import Problem
from models.backbones.base import Backbone
from models.base import HashLoss, HashModel
from runners.training.optimization import Optimization

ROWS = 512
"""Training rows of the problem, enough for the statistics of a memory bank."""

WIDTHS = {
    "ViT-B-32-quickgelu": 512, "blip": 768, "alexnet": 4096,
    "resnet34": 512, "resnet50": 2048, "resnet101": 2048,
}  # fmt: skip


class StandIn(Backbone):
    """An encoder of the widths of the run's, with one parameter; pooled features come with rows."""

    def __init__(self, name: str, modalities: tuple[str, ...], frozen: bool) -> None:
        super().__init__()
        self.widths = {modality: WIDTHS[name] for modality in modalities}
        self.token_widths = dict(self.widths)
        self.token_counts = {"image": 49, "text": 32}
        self.scale = nn.Parameter(torch.ones(1), requires_grad=not frozen)

    def encode_image(self, image: Tensor, tokens: bool = False) -> Features:
        """Refuse: features come with the batch."""
        raise NotImplementedError


@dataclasses.dataclass
class Built:
    """The parts of a run; ``where`` finds a parameter's optimiser and group by its id."""

    config: RunConfig
    problem: Problem
    model: HashModel
    loss: HashLoss
    optimization: Optimization

    @property
    def where(self) -> dict[int, tuple[torch.optim.Optimizer, dict[str, Any]]]:
        return {
            id(p): (optimizer, group)
            for optimizer in self.optimization.optimizers
            for group in optimizer.param_groups
            for p in group["params"]
        }

    @property
    def K(self) -> int:  # noqa: N802 - as in the recipes
        return self.problem.bits

    def batch(self, rows: int = 8) -> Batch:
        """Return pooled features and first labels of some rows."""
        generator = torch.Generator().manual_seed(1)
        features = {
            f"{m}_features": Features(torch.randn(rows, width, generator=generator))
            for m, width in self.model.backbone.widths.items()
        }
        label = torch.eye(self.problem.n_classes)[torch.arange(rows) % self.problem.n_classes]
        return Batch(label=label, index=torch.arange(rows), **features)


def build(config: RunConfig, classes: int, attributes: int) -> Built:
    """Build model, loss and optimisers of ``config`` for a dataset of so many classes."""
    torch.manual_seed(0)
    labels = torch.eye(classes)[torch.arange(ROWS) % classes]
    problem = Problem(
        bits=config.bits, n_classes=classes, n_train=ROWS, multi_label=True,
        class_names=tuple(f"class {c}" for c in range(classes)), train_labels=labels,
        attributes=torch.rand(classes, attributes) if attributes else None,
        attribute_names=tuple(f"attribute {a}" for a in range(attributes)),
        seen_classes=tuple(range(classes)), generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert config.loss is not None
    settings = config.backbone.config
    name = getattr(settings, "model", config.backbone.name)
    modalities = config.model.entry.target.modalities
    encoder = StandIn(name, modalities, settings.freeze == "all")
    model = config.model.entry.target(without_files(config.model.config), problem, encoder)
    loss = config.loss.entry.target(config.loss.config, problem)
    return Built(config, problem, model, loss, Optimization.build(config.optim, model, loss))


def without_files(settings: Any) -> Any:
    """Return settings of a model without the files that it would read."""
    if hasattr(settings, "files"):
        settings = dataclasses.replace(settings, files=None)
    if hasattr(settings, "text"):
        text = dataclasses.replace(settings.text, vocabulary=None)
        settings = dataclasses.replace(settings, text=text)
    return settings


# ---- layers


def size(count: int, built: Built) -> str:
    """Return how the recipes call a number of outputs.

    >>> size(16, argparse.Namespace(K=16))
    'K'
    """
    names = {built.K: "K", 2 * built.K: "2K"}
    return names.get(count, str(count))


def linear(layer: nn.Linear, built: Built | None) -> str:
    """Return e.g. ``Linear 512->K without bias``; without ``built`` the number of outputs."""
    outputs = layer.out_features if built is None else size(layer.out_features, built)
    return (
        f"Linear {layer.in_features}->{outputs}{'' if layer.bias is not None else ' without bias'}"
    )


def words(layers: Iterable[nn.Module], built: Built) -> str:
    """Return a sequence of layers, joined by commas; the outputs of the last linear one by name."""
    layers = list(layers)
    last, parts = [layer for layer in layers if isinstance(layer, nn.Linear)][-1], []
    for layer in layers:
        if isinstance(layer, nn.Linear):
            parts.append(linear(layer, built if layer is last else None))
        elif isinstance(layer, nn.Dropout):
            parts.append(f"dropout {layer.p}")
        else:
            parts.append({nn.ReLU: "ReLU", nn.Tanh: "tanh"}.get(type(layer), type(layer).__name__))
    return ", ".join(parts)


def per_modality(heads: Mapping[str, nn.Module] | nn.ModuleDict, what: str = "one") -> str:
    """Return ``; one per modality``, where there are two of them."""
    return f"; {what} per modality" if len({id(head) for head in heads.values()}) == 2 else ""


def of_kind(module: nn.Module, kind: type[nn.Module]) -> list[Any]:
    """Return the submodules of a kind."""
    return [part for part in module.modules() if isinstance(part, kind)]


def dropout(module: nn.Module) -> float:
    """Return the one share of all dropouts, attention's included; 0 without any."""
    shares = {layer.p for layer in of_kind(module, nn.Dropout)}
    shares |= {layer.dropout for layer in of_kind(module, nn.MultiheadAttention)}
    assert len(shares) <= 1, shares
    return shares.pop() if shares else 0


# ---- initialisation, by statistics of what was drawn


def spread(values: Tensor) -> float:
    """Return how far a deviation may be off, as a share: four standard errors, 2 % at least."""
    return max(4 / math.sqrt(2 * values.numel()), 0.02)


def is_uniform(values: Tensor, bound: float) -> bool:
    """Whether values are uniform within ±bound, by their largest one and their deviation."""
    largest = values.abs().max().item()
    near = abs(values.std().item() / bound * 3**0.5 - 1) < spread(values)
    return largest <= bound * 1.0001 and near


def is_normal(values: Tensor, deviation: float) -> bool:
    """Whether values are normal with a deviation, by it and their largest one."""
    wide = values.abs().max().item() > 2.2 * deviation
    return wide and abs(values.std().item() / deviation - 1) < spread(values)


def drawn(layers: Iterable[nn.Linear]) -> str:
    """Return how the weights of linear layers were drawn, as the recipes say it."""
    layers = list(layers)

    def scaled(bound: Any) -> Tensor:
        return torch.cat([(x.weight.detach() / bound(*x.weight.shape)).flatten() for x in layers])

    if is_uniform(scaled(lambda out, inputs: math.sqrt(6 / out)), 1):
        return "kaiming_uniform fan_out"
    if is_uniform(scaled(lambda out, inputs: 1 / math.sqrt(inputs)), 1):
        return "PyTorch's default"
    if is_normal(scaled(lambda out, inputs: 1), 0.01):
        return "N(0, 0.01^2)"
    return "another"


def drawn_bias(layers: Iterable[nn.Linear]) -> Any:
    """Return how the biases of linear layers start."""
    layers = list(layers)
    biases = [x.bias.detach() * math.sqrt(x.in_features) for x in layers if x.bias is not None]
    if not biases:
        return "absent"
    scaled = torch.cat(biases)
    if not scaled.any():
        return 0
    return "PyTorch's default" if scaled.abs().max() <= 1 and scaled.std() > 0.4 else "another"


def init(*modules: nn.Module) -> dict[str, Any]:
    """Return ``weight`` and ``bias`` of all linear layers in modules, attention's own left out."""
    layers = [layer for module in modules for layer in of_kind(module, nn.Linear)]
    layers = [x for x in layers if type(x) is nn.Linear]
    return {"weight": drawn(layers), "bias": drawn_bias(layers)}


def default_attention(attention: nn.MultiheadAttention) -> bool:
    """Whether an attention starts as PyTorch's does."""
    width = attention.embed_dim
    weight, out = attention.in_proj_weight.detach(), attention.out_proj
    return (
        is_uniform(weight, math.sqrt(6 / (4 * width)))
        and is_uniform(out.weight.detach(), 1 / math.sqrt(width))
        and not attention.in_proj_bias.any()
        and not out.bias.any()
    )


# ---- optimisers, as built

Parts = Mapping[str, Iterable[nn.Parameter]]


def sections(built: Built, **named: Any) -> dict[str, Any]:
    """Return parameters by the recipe's words: ``encoder`` and modules or lists under names."""
    found = {"encoder": [p for p in built.model.backbone.parameters() if p.requires_grad]}
    for name, value in named.items():
        members = value.parameters() if isinstance(value, nn.Module) else value
        found[name.replace("_", " ")] = list(members)
    return {"parts": found}


def optimiser(built: Built, parts: Parts, second: Iterable[nn.Parameter] = ()) -> dict[str, Any]:
    """Return ``optimiser``, ``weight_decay`` and ``clipping`` of the recipe's ``parts``.

    Parameters of no part but trained are a part of their own, ``others``; those of a part that no
    optimiser has are ``in_no_group``.
    """
    where, named = built.where, {id(p) for p in second}
    groups: list[dict[str, Any]] = []
    nowhere, main = [], []
    for name, members in parts.items():
        members = list(members)
        named |= {id(p) for p in members}
        found = [where[id(p)] for p in members if id(p) in where]
        if members and len(found) != len(members):
            nowhere.append(name)
        if found:
            groups.append({"params": name, "lr": _rate(built, found)})
        main += found
    others = [where[key] for key in where if key not in named]
    if others:
        groups.append({"params": "others", "lr": _rate(built, others)})
    main += others
    each = [_constants(chosen, group) for chosen, group in main]
    values = {key: common(one.get(key) for one in each) for one in each for key in one}
    values["groups"] = groups
    decoupled = values["name"] in ("BertAdam", "AdamW")
    if nowhere:
        values["in_no_group"] = ", ".join(nowhere)
    return {
        "optimiser": values,
        "weight_decay": {
            "value": common(group["weight_decay"] for _, group in main),
            "kind": "decoupled" if decoupled else "L2 in the gradient",
            "exclusions": "none",
        },
        "clipping": clipping(built.config, common(g.get("max_grad_norm", 0) for _, g in main)),
    }


def common(values: Iterable[Any]) -> Any:
    """Return the one value that all are, or all different ones, so that nothing equals it."""
    different = list(dict.fromkeys(values))
    return different[0] if len(different) == 1 else different


def _rate(built: Built, found: Iterable[tuple[Any, Mapping[str, Any]]]) -> Any:
    return common(built.optimization.settings[group["name"]].lr for _, group in found)


def _constants(chosen: torch.optim.Optimizer, group: Mapping[str, Any]) -> dict[str, Any]:
    name = type(chosen).__name__
    values: dict[str, Any] = {"name": name}
    if "betas" in group:
        values["b1"], values["b2"] = group["betas"]
        values |= {"eps": group["eps"], "bias_correction": name != "BertAdam"}
    elif name == "RMSprop":
        values |= {key: group[key] for key in ("alpha", "eps", "momentum", "centered")}
    else:
        values |= {key: group[key] for key in ("momentum", "nesterov")}
    return values


def clipping(config: RunConfig, by_tensor: Any) -> dict[str, Any] | None:
    """Return the clipping of a run; ``by_tensor``: the largest norm of a tensor's gradient."""
    if config.runner.config.clip_norm:
        return {"kind": "gradient norm of all", "max": config.runner.config.clip_norm}
    if by_tensor:
        return {"kind": "gradient norm of every tensor by itself", "max": by_tensor}
    return None


def second_optimiser(built: Built, name: str) -> dict[str, Any]:
    """Return the optimiser of the loss's group ``name``, stepped or not."""
    settings = built.config.optim[name]
    stepped = any(group["name"] == name for _, group in built.where.values())
    config = settings.optimizer.config
    return {
        "name": settings.optimizer.name.upper(), "params": name, "lr": settings.lr,
        "momentum": config.momentum, "weight_decay": config.weight_decay,
        "schedule": settings.schedule.name, "per": "step" if stepped else "never stepped",
    }  # fmt: skip


def schedule(config: RunConfig) -> dict[str, Any]:
    """Return the schedule of the head's group; the encoder's has to be the same."""
    group = config.optim["head"]
    assert group.schedule == config.optim["backbone"].schedule
    settings, rate = group.schedule.config, group.schedule.entry.target
    epochs = config.runner.config.epochs
    match group.schedule.name:
        case "warmup_cosine":
            after = math.ceil(settings.warmup * 1000) + 1  # the first step behind the rise
            cosine = 0.5 * (1 + math.cos(math.pi * after / 1000))
            rescaled = abs(rate(settings, after, 1000, 0, 1) - cosine) > 1e-9
            return {
                "name": "warmup_cosine", "per": "step", "warmup_share": settings.warmup,
                "first_step_rate": rate(settings, 0, 1000, 0, epochs),
                "cosine_rescaled_after_warmup": rescaled,
            }  # fmt: skip
        case "cosine":
            last = group.lr * rate(settings, 0, 1, epochs, epochs)
            to = float(f"{last:.6g}")
            return {"name": "cosine", "per": "epoch", "epochs": epochs, "to": to}
        case "step":
            factor = rate(settings, 0, 1, settings.every, epochs)
            return {
                "name": "step", "per": "epoch", "every_epochs": settings.every, "factor": factor,
            }  # fmt: skip
        case name:
            return {"name": name}
