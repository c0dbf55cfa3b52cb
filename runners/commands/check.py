"""``main.py check``: train a method briefly on toy features, before hours are spent on it.

At 16, 48 and 64 bits, on single- and on multi-label rows, and at 48 bits with 2 and with 1,000
classes: model and loss are built, outputs and codes have the right shapes, terms are finite, a
batch of one row works, the same seed gives the same loss, the loss falls, and a saved and reloaded
model gives the same codes.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from common import registry
from common.config.run_config import RunConfig, compose, misfit
from runners.commands.arguments import add_settings
from utils.errors import UserError
from utils.terminal import say

if TYPE_CHECKING:
    from torch import Tensor

    from common.batch import Batch
    from models.base import HashLoss, HashModel, Terms

ROWS, WIDTH, TOKENS = 48, 32, 5
STEPS, RATE = 40, 1e-2


class Toy(NamedTuple):
    """Kind of toy rows: ``classes`` of them may occur, one or several in a row."""

    title: str
    classes: int = 6
    multi_label: bool = False


SINGLE, MULTI = Toy("single-label"), Toy("multi-label", multi_label=True)
CASES = (
    *((bits, toy) for bits in (16, 48, 64) for toy in (SINGLE, MULTI)),
    (48, Toy("2 classes", 2)),
    (48, Toy("1,000 classes", 1000)),
)  # fmt: skip


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``check``."""
    parser.add_argument("target", metavar="METHOD|FILE.py")
    add_settings(parser, "loss.name=my_loss")


def run(options: argparse.Namespace) -> int:
    """Check a method by name, or all that a plugin file registers; print one line per case.

    Returns:
        The exit code: 1 when a case failed.

    Raises:
        UserError: unknown method, a file that does not load or registers nothing, bad settings.
    """
    target, settings = options.target, options.settings
    trials = _plugin_trials(target) if target.endswith(".py") else [[f"method={target}"]]
    passed = True
    for words in trials:
        compose([*words, *settings])  # wrong settings are refused before anything is printed
        say(" ".join(words))
        for bits, toy in CASES:
            config = compose([*words, f"bits={bits}", *settings])
            problem = _problem(config, toy)
            say(f"  {config.bits:3} bits, {toy.title:13}  {problem or 'sound'}")
            passed = passed and problem is None
    return 0 if passed else 1


def _plugin_trials(path: str) -> list[list[str]]:
    """Return the settings that try each loss and model of a plugin file, with fitting partners.

    A loss is tried with the file's own models where it fits one; otherwise, and where it reads the
    codes of whatever modalities there are, with those of CSQ (pictures) and DSPH (with texts).
    """
    file = str(registry.load_plugin(path))
    models, losses = (_entries_of(file, table) for table in (registry.MODELS, registry.LOSSES))
    trials, paired = [], set()
    for loss in losses:
        tried = set()
        for model in (model for model in models if misfit(model, loss) is None):
            (task,) = _tasks(model.provides)
            trials.append([f"method={task}", f"model.name={model.name}", f"loss.name={loss.name}"])
            paired.add(model.name)
            tried.add(task)
        if "*_code" in loss.needs or not tried:
            remaining = [task for task in _tasks(loss.needs) if task not in tried]
            trials += [[f"method={task}", f"loss.name={loss.name}"] for task in remaining]
    for model in (model for model in models if model.name not in paired):
        (task,) = _tasks(model.provides)
        trials.append([f"method={task}", f"model.name={model.name}"])
    if not trials:
        raise UserError(
            f"'{path}' registers neither a model nor a loss; use @LOSSES.register or "
            "@MODELS.register."
        )
    return [[*words, f"plugins=[{file}]"] for words in trials]


def _entries_of(file: str, table: registry.Registry) -> list[registry.Entry]:
    entries = [table.get(name) for name in table.names()]
    return [entry for entry in entries if str(Path(entry.file).resolve()) == file]


def _tasks(outputs: Sequence[str]) -> tuple[str, ...]:
    """Return the methods whose data and recipe suit what a loss reads or a model gives."""
    if any(name.startswith("text") for name in outputs):
        return ("dsph",)
    return ("csq", "dsph") if "*_code" in outputs else ("csq",)


def _problem(config: RunConfig, toy: Toy) -> str | None:
    """Return why a case fails, or None."""
    try:
        for test in (_trains, _repeats, _takes_one_row, _survives_saving):
            problem = test(config, toy)
            if problem:
                return f"{test.__name__.lstrip('_')}: {problem}"
    except UserError as error:
        return f"refused: {error}"
    except Exception as error:  # noqa: BLE001 - any exception of a method is a failed case
        return f"{type(error).__name__}: {error}"
    return None


def toy_rows(modalities: Sequence[str], toy: Toy, rows: int = ROWS) -> Batch:
    """Return a batch of separable features: sums of class means, plus noise."""
    import torch

    from common.batch import Batch, Features

    generator = torch.Generator().manual_seed(1)
    classes = toy.classes
    label = torch.zeros(rows, classes)
    label[torch.arange(rows), torch.arange(rows) % classes] = 1
    if toy.multi_label:
        label = ((label + (torch.rand(rows, classes, generator=generator) < 0.2)) > 0).float()
    batch = Batch(label=label, index=torch.arange(rows))
    for modality in modalities:
        means = torch.randn(classes, WIDTH, generator=generator)
        noise = torch.randn(rows, TOKENS, WIDTH, generator=generator)
        tokens = (label @ means)[:, None] + 0.3 * noise  # [N,L,D]
        mask = torch.zeros(rows, TOKENS, dtype=torch.bool)
        setattr(batch, f"{modality}_features", Features(tokens.mean(1), tokens, mask))
    return batch


def toy_parts(config: RunConfig, toy: Toy) -> tuple[HashModel, HashLoss | None, Batch]:
    """Return model, loss and rows for toy features, seeded by the config's seed."""
    import torch

    from common.problem import Problem
    from models.backbones.base import CachedBackbone
    from models.base import TrainFeatures

    torch.manual_seed(config.seed)
    target = config.model.entry.target
    modalities = target.modalities or ("image", "text")
    batch = toy_rows(modalities, toy)
    numbers = range(toy.classes)
    problem = Problem(
        bits=config.bits, n_classes=toy.classes, n_train=ROWS, multi_label=toy.multi_label,
        class_names=tuple(f"class {c}" for c in numbers), train_labels=batch.label,
        attributes=torch.eye(toy.classes), attribute_names=tuple(f"trait {c}" for c in numbers),
        seen_classes=tuple(numbers),
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


def _losses(config: RunConfig, toy: Toy, steps: int) -> list[float]:
    """Train for ``steps`` steps and return the loss of each."""
    from torch.optim import Adam

    from models.base import Progress
    from runners.training.module import TrainingModule

    model, loss, batch = toy_parts(config, toy)
    assert loss is not None
    module = TrainingModule(model, loss)
    optimizer = Adam(
        [parameter for parameter in module.parameters() if parameter.requires_grad], RATE
    )
    values = []
    for step in range(steps):
        terms = module(batch, Progress(0, step, 1, steps))
        name = _not_finite(terms)
        if name is not None:
            raise ValueError(f"loss term '{name}' is {terms[name].item()} at step {step}")
        optimizer.zero_grad()
        terms.total().backward()
        optimizer.step()
        values.append(terms.total().item())
    return values


def _not_finite(terms: Terms) -> str | None:
    """Return the first term that is NaN or infinite."""
    return next((name for name, term in terms.items() if not term.isfinite()), None)


def _trains(config: RunConfig, toy: Toy) -> str | None:
    model, loss, batch = toy_parts(config, toy)
    for modality in model.modalities:
        code = _codes(model, batch, modality)
        if code.shape != (ROWS, config.bits):
            return f"{modality} codes are {list(code.shape)}, not [{ROWS},{config.bits}]"
    if loss is None:
        return None
    values = _losses(config, toy, STEPS)
    if not min(values[-5:]) < values[0]:
        return (
            f"the loss does not fall: {values[0]:.4f} first, {values[-1]:.4f} after {STEPS} steps"
        )
    return None


def _repeats(config: RunConfig, toy: Toy) -> str | None:
    if config.loss is None:
        (model, _, batch), (other, _, other_batch) = (toy_parts(config, toy) for _ in range(2))
        same = all(
            _codes(model, batch, m).equal(_codes(other, other_batch, m)) for m in model.modalities
        )
        return None if same else "the same seed gives other codes"
    first, second = (_losses(config, toy, 3) for _ in range(2))
    return None if first == second else f"the same seed gives other losses: {first} and {second}"


def _takes_one_row(config: RunConfig, toy: Toy) -> str | None:
    from models.base import Progress
    from runners.training.module import TrainingModule

    model, loss, _ = toy_parts(config, toy)
    row = toy_rows(model.modalities, toy, rows=1)
    if loss is not None:
        name = _not_finite(TrainingModule(model, loss)(row, Progress()))
        if name is not None:
            return f"loss term '{name}' is not finite for a batch of one row"
    for modality in model.modalities:
        if _codes(model, row, modality).shape != (1, config.bits):
            return f"{modality} codes of one row are not [1,{config.bits}]"
    return None


def _survives_saving(config: RunConfig, toy: Toy) -> str | None:
    model, _, batch = toy_parts(config, toy)
    other, _, _ = toy_parts(dataclasses.replace(config, seed=config.seed + 1), toy)
    other.load_state_dict(model.state_dict())
    for modality in model.modalities:
        if not _codes(model, batch, modality).equal(_codes(other, batch, modality)):
            return f"a reloaded model gives other {modality} codes: something is not in its state"
    return None


def _codes(model: HashModel, batch: Batch, modality: str) -> Tensor:
    import torch

    from common.codes import sign

    model.eval()
    with torch.no_grad():
        return sign(model.encode(batch, modality))
