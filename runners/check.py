"""Is this method sound? Brief training on toy features says so before hours are spent.

At 16, 48 and 64 bits, on single- and on multi-label rows: model and loss are built, outputs and
codes have the right shapes, terms are finite, a batch of one row works, the same seed gives the
same loss, the loss falls, and a saved and reloaded model gives the same codes.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from common import registry
from common.batch import Batch, Features
from common.codes import sign
from common.config import RunConfig, compose
from common.problem import Problem
from models.backbones.base import CachedBackbone
from models.base import HashLoss, HashModel, Progress, TrainFeatures
from runners.training_module import TrainingModule
from utils.errors import UserError

BITS = (16, 48, 64)
ROWS, CLASSES, WIDTH, TOKENS = 48, 6, 32, 5
STEPS, RATE = 40, 1e-2


def check(target: str, settings: Sequence[str] = ()) -> bool:
    """Check a method by name, or everything that a plugin file registers; print a line per finding.

    Returns:
        Whether all is well.

    Raises:
        UserError: unknown method, a file that does not load or registers nothing, bad settings.
    """
    words = _plugin_words(target) if target.endswith(".py") else [[f"method={target}"]]
    sound = True
    for own in words:
        compose([*own, *settings])  # a slip is told before anything is printed
        print(" ".join(own))
        for bits, multi_label in itertools.product(BITS, (False, True)):
            config = compose([*own, f"bits={bits}", *settings])
            finding = _finding(config, multi_label)
            kind = "multi-label" if multi_label else "single-label"
            print(f"  {bits:3} bits, {kind:12}  {finding or 'sound'}")
            sound = sound and finding is None
    return sound


def _plugin_words(path: str) -> list[list[str]]:
    """Return the settings that try each loss and model of a plugin file, with fitting partners."""
    file = str(registry.load_plugin(path))
    words = []
    for section, table in (("loss", registry.LOSSES), ("model", registry.MODELS)):
        for entry in (table.get(name) for name in table.names()):
            if str(Path(entry.file).resolve()) != file:
                continue
            about_text = any(name.startswith("text") for name in (*entry.needs, *entry.provides))
            method = "dsph" if about_text else "csq"
            words.append([f"method={method}", f"{section}.name={entry.name}", f"plugins=[{file}]"])
    if not words:
        raise UserError(
            f"'{path}' registers neither a model nor a loss; use @LOSSES.register or "
            "@MODELS.register."
        )
    return words


def _finding(config: RunConfig, multi_label: bool) -> str | None:
    """Return what is wrong, or None."""
    try:
        for test in (_trains, _repeats, _takes_one_row, _survives_saving):
            problem = test(config, multi_label)
            if problem:
                return f"{test.__name__.lstrip('_')}: {problem}"
    except UserError as error:
        return f"refused: {error}"
    except Exception as error:  # noqa: BLE001 - whatever a method raises is the finding
        return f"{type(error).__name__}: {error}"
    return None


def toy_rows(modalities: Sequence[str], multi_label: bool, rows: int = ROWS) -> Batch:
    """Return a batch of separable features: sums of class means, plus noise."""
    generator = torch.Generator().manual_seed(1)
    label = torch.zeros(rows, CLASSES)
    label[torch.arange(rows), torch.arange(rows) % CLASSES] = 1
    if multi_label:
        label = ((label + (torch.rand(rows, CLASSES, generator=generator) < 0.2)) > 0).float()
    batch = Batch(label=label, index=torch.arange(rows))
    for modality in modalities:
        means = torch.randn(CLASSES, WIDTH, generator=generator)
        noise = torch.randn(rows, TOKENS, WIDTH, generator=generator)
        tokens = (label @ means)[:, None] + 0.3 * noise  # [N,L,D]
        mask = torch.zeros(rows, TOKENS, dtype=torch.bool)
        setattr(batch, f"{modality}_features", Features(tokens.mean(1), tokens, mask))
    return batch


def toy_parts(config: RunConfig, multi_label: bool) -> tuple[HashModel, HashLoss | None, Batch]:
    """Return model, loss and rows for toy features, seeded by the config's seed."""
    torch.manual_seed(config.seed)
    target = config.model.entry.target
    modalities = target.modalities or ("image", "text")
    batch = toy_rows(modalities, multi_label)
    problem = Problem(
        bits=config.bits, n_classes=CLASSES, n_train=ROWS, multi_label=multi_label,
        class_names=tuple(f"class {c}" for c in range(CLASSES)), train_labels=batch.label,
        seen_classes=tuple(range(CLASSES)),
        generator=torch.Generator().manual_seed(config.seed),
    )  # fmt: skip
    widths = {modality: WIDTH for modality in modalities}
    backbone = CachedBackbone(widths, widths, "toy", {m: TOKENS for m in modalities})
    model = target(config.model.config, problem, backbone)
    if model.needs_fit:
        values = [batch.features(m).pooled if m in modalities else None for m in ("image", "text")]  # type: ignore[union-attr]
        model.fit(TrainFeatures(values[0], values[1], batch.label))
    loss = config.loss.entry.target(config.loss.config, problem) if config.loss else None
    return model, loss, batch


def _losses(config: RunConfig, multi_label: bool, steps: int) -> tuple[list[float], HashModel]:
    model, loss, batch = toy_parts(config, multi_label)
    assert loss is not None
    module = TrainingModule(model, loss)
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, RATE)
    values = []
    for step in range(steps):
        terms = module(batch, Progress(0, step, 1, steps))
        broken = [name for name, term in terms.items() if not torch.isfinite(term)]
        if broken:
            raise ValueError(f"loss term '{broken[0]}' is {float(terms[broken[0]])} at step {step}")
        optimizer.zero_grad()
        terms.total().backward()
        optimizer.step()
        values.append(terms.total().item())
    return values, model


def _trains(config: RunConfig, multi_label: bool) -> str | None:
    model, loss, batch = toy_parts(config, multi_label)
    for modality in model.modalities:
        code = _codes(model, batch, modality)
        if code.shape != (ROWS, config.bits):
            return f"{modality} codes are {list(code.shape)}, not [{ROWS},{config.bits}]"
    if loss is None:
        return None
    values, _ = _losses(config, multi_label, STEPS)
    if not min(values[-5:]) < values[0]:
        return (
            f"the loss does not fall: {values[0]:.4f} first, {values[-1]:.4f} after {STEPS} steps"
        )
    return None


def _repeats(config: RunConfig, multi_label: bool) -> str | None:
    if config.loss is None:
        first, second = (toy_parts(config, multi_label) for _ in range(2))
        same = all(
            torch.equal(_codes(first[0], first[2], m), _codes(second[0], second[2], m))
            for m in first[0].modalities
        )
        return None if same else "the same seed gives other codes"
    first_values, second_values = (_losses(config, multi_label, 3)[0] for _ in range(2))
    if first_values != second_values:
        return f"the same seed gives other losses: {first_values} and {second_values}"
    return None


def _takes_one_row(config: RunConfig, multi_label: bool) -> str | None:
    model, loss, _ = toy_parts(config, multi_label)
    one = toy_rows(model.modalities, multi_label, rows=1)
    if loss is not None:
        terms = TrainingModule(model, loss)(one, Progress())
        broken = [name for name, term in terms.items() if not torch.isfinite(term)]
        if broken:
            return f"loss term '{broken[0]}' is not finite for a batch of one row"
    for modality in model.modalities:
        if _codes(model, one, modality).shape != (1, config.bits):
            return f"{modality} codes of one row are not [1,{config.bits}]"
    return None


def _survives_saving(config: RunConfig, multi_label: bool) -> str | None:
    model, _, batch = toy_parts(config, multi_label)
    state = copy.deepcopy(model.state_dict())
    with torch.random.fork_rng():
        torch.manual_seed(config.seed + 1)
        other, _, _ = toy_parts(config, multi_label)
    other.load_state_dict(state)
    for modality in model.modalities:
        if not torch.equal(_codes(model, batch, modality), _codes(other, batch, modality)):
            return f"a reloaded model gives other {modality} codes: something is not in its state"
    return None


@torch.no_grad()
def _codes(model: HashModel, batch: Batch, modality: str) -> Tensor:
    model.eval()
    code = sign(model.encode(batch, modality))
    model.train()
    return code
