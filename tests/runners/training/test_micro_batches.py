"""Out of memory: the batch is taken in parts, and the gradient stays that of the whole."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from common.batch import Batch, Features
from models.base import Outputs, Progress, Terms
from runners.training.micro_batches import is_out_of_memory, rows_of, step_in_parts
from runners.training.module import TrainingModule
from tests.helpers import QUICK, run
from utils.errors import UserError


class Head(nn.Module):
    """Two layers and a buffer that counts rows."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 5)
        self.outer = nn.Linear(5, 4)
        self.register_buffer("seen", torch.zeros(()))
        self.largest = 0

    def forward(self, batch: Batch) -> Outputs:
        self.largest = max(self.largest, len(batch))
        if self.training:
            self.seen += len(batch)
        hidden = torch.relu(self.inner(batch.image_features.pooled))
        return Outputs(image_code=self.outer(hidden), kept=batch.index)


class AllPairs(nn.Module):
    """Every pair of rows, and a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, outputs: Outputs, batch: Batch, progress: Progress) -> Terms:
        code = outputs.image_code
        same = (batch.label @ batch.label.T > 0).to(code.dtype)
        assert outputs.kept.tolist() == batch.index.tolist()
        return Terms(pair=(self.scale * code @ code.T - same).pow(2).mean(), size=code.abs().sum())


def gradients(module: nn.Module) -> dict[str, torch.Tensor]:
    values = {name: p.grad.clone() for name, p in module.named_parameters()}
    module.zero_grad(set_to_none=True)
    return values


@pytest.mark.parametrize("rows", [1, 3, 5, 7, 10])
def test_the_gradient_of_parts_is_that_of_the_whole(rows):
    torch.manual_seed(0)
    module = TrainingModule(Head(), AllPairs()).double()
    label = torch.eye(3, dtype=torch.double)[torch.arange(7) % 3]
    pooled = Features(torch.randn(7, 3, dtype=torch.double))
    batch = Batch(label=label, index=torch.arange(7), image_features=pooled)
    terms = module(batch, Progress())
    terms.total().backward()
    whole = gradients(module)
    module.model.seen.zero_()
    module.model.largest = 0
    again = step_in_parts(module, batch, Progress(), rows, backward=lambda t: t.backward())
    parts = gradients(module)
    assert module.model.largest == min(rows, 7) and module.model.seen == 7
    assert {name: term.item() for name, term in again.items()} == pytest.approx(
        {name: term.item() for name, term in terms.items()}
    )
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value)


def test_dropout_draws_the_same_in_both_passes():
    """With one row a part, the output that the loss saw is the one that the gradient is of."""
    torch.manual_seed(0)
    seen: list[torch.Tensor] = []

    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(8))

        def forward(self, batch: Batch) -> Outputs:
            seen.append(nn.functional.dropout(self.weight.expand(len(batch), 8), 0.5))
            return Outputs(image_code=seen[-1], kept=batch.index)

    module = TrainingModule(Dropping(), AllPairs())
    batch = Batch(label=torch.ones(4, 1), index=torch.arange(4))
    step_in_parts(module, batch, Progress(), 2, backward=lambda t: t.backward())
    assert torch.equal(seen[0], seen[2]) and torch.equal(seen[1], seen[3])
    assert not torch.equal(seen[0], seen[1])


def test_rows_of_every_part_of_a_batch():
    inner = Batch(label=torch.arange(4.0)[:, None], index=torch.arange(4))
    batch = Batch(
        label=torch.eye(4), index=torch.arange(4), text=torch.arange(8).view(4, 2),
        text_features=Features(torch.arange(4.0)[:, None]), extras={"a": torch.arange(4)},
        auxiliary={"second": inner},
    )  # fmt: skip
    cut = rows_of(batch, 1, 3)
    assert len(cut) == 2 and cut.image is None and cut.text.tolist() == [[2, 3], [4, 5]]
    assert cut.text_features.pooled.flatten().tolist() == [1, 2]
    assert cut.text_features.tokens is None
    assert cut.extras["a"].tolist() == [1, 2] and cut.auxiliary["second"].index.tolist() == [1, 2]


def test_what_running_out_of_memory_looks_like():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory")) and torch
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


@pytest.fixture
def little_memory(monkeypatch):
    """Return a function: from now on, training fails with more than so many rows in the model."""
    forward = TrainingModule.outputs

    def set_limit(rows: int) -> None:
        def outputs(self, batch):
            if len(batch) > rows:
                raise torch.OutOfMemoryError("CUDA out of memory (as if)")
            return forward(self, batch)

        monkeypatch.setattr(TrainingModule, "outputs", outputs)

    return set_limit


def test_a_run_goes_on_in_parts_and_says_so(captioned, tmp_path, little_memory):
    words = ["method=dcmht_attention", *QUICK, *captioned, "eval.select=last"]
    whole = run(*words, f"output={tmp_path / 'whole'}").metrics()
    little_memory(5)
    folder = run(*words, f"output={tmp_path / 'parts'}")
    metrics = folder.metrics()
    assert metrics["protocol"].pop("micro_batch") == 4  # 16, 8, 4
    assert (
        "from now on 4 at a time, with the loss of the whole batch"
        in (folder.path / "log.txt").read_text()
    )
    for direction, report in whole["directions"].items():
        value = metrics["directions"][direction]["map"]["all"]["expected"]
        assert value == pytest.approx(report["map"]["all"]["expected"], abs=0.05)


@pytest.mark.parametrize(
    ("words", "why"),
    [([], "one row is too many"), (["runner.accumulate=2"], "with runner.accumulate > 1")],
)
def test_where_it_cannot_be_helped(words, why, pictures, tmp_path, little_memory):
    little_memory(0)
    with pytest.raises(UserError, match=f"Out of memory with .* {why}"):
        run("method=csq", *QUICK, *pictures, *words, f"output={tmp_path}")
