"""Every loss under two real processes that talk by gloo: what one process computes, they compute.

Model and loss are wrapped as training wraps them. Each process is handed half of the batch; losses,
gradients and memories must be those of the whole batch. Heads run in evaluation mode: dropout draws
per process, and batch statistics are those of a process's own rows.

``tests/bench/two_processes_table.py`` prints the differences, also of heads in training mode.
"""

import pytest
import torch
import torch.multiprocessing
from torch.nn.parallel import DistributedDataParallel

from common.distributed import local_share
from common.registry import LOSSES, MODELS
from models.base import Progress
from runners.training.module import TrainingModule
from tests.models.toys import ROWS, fitting_pairs, make_loss, make_model, take, toy_batch
from tests.models.toys import toy_problem as problem_of

STEPS = 2


def own_losses():
    """Return the project's losses; plugins of other tests are not there in a new process."""
    return [n for n in LOSSES.names() if LOSSES.get(n).target.__module__.startswith("models.")]


def first_pairs():
    """Return one (loss, model) for every loss, of the same name where there is one."""
    chosen = {}
    for loss, model in fitting_pairs():
        ours = loss in own_losses() and MODELS.get(model).target.__module__.startswith("models.")
        if ours and (loss not in chosen or model == loss):
            chosen[loss] = model
    return sorted(chosen.items())


def steps(loss_name, model_name, wrap, training=False):
    """Return what two steps give: terms, gradients, and the loss's buffers after them.

    ``training``: the mode of the heads.
    """
    problem = problem_of(16, multi=True)
    module = TrainingModule(make_model(model_name, problem), make_loss(loss_name, problem)).double()
    module.train()
    module.model.train(training)
    wrapped = wrap(module)
    batch = take(toy_batch(multi=True), local_share(ROWS))
    for modality in ("image", "text"):
        features = batch.features(modality)
        batch = batch.__class__(
            **{
                **vars(batch),
                f"{modality}_features": type(features)(
                    features.pooled.double(), features.tokens.double(), features.mask
                ),
            }
        )
    found = {}
    for step in range(STEPS):
        module.zero_grad()
        terms = wrapped(batch, Progress(0, step, 1, STEPS))
        terms.total().backward()
        found |= {f"{step} {name}": value.detach() for name, value in terms.items()}
    gradients = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
    return found | gradients | dict(module.loss.named_buffers())


def work(rank, world, folder, pairs, training=False):
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(str(folder / "store"), world)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)
    for loss, model in pairs:
        found = steps(
            loss, model, lambda m: DistributedDataParallel(m, find_unused_parameters=True), training
        )
        torch.save(found, folder / f"{loss}{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("two")
    torch.multiprocessing.spawn(work, args=(2, place, first_pairs()), nprocs=2)
    return place


@pytest.mark.parametrize("name", own_losses())
def test_two_processes_compute_what_one_does(name, folder):
    alone = steps(name, dict(first_pairs())[name], lambda module: module)
    for rank in range(2):
        together = torch.load(folder / f"{name}{rank}.pt")
        assert together.keys() == alone.keys()
        for key, value in alone.items():
            torch.testing.assert_close(
                together[key], value, rtol=1e-9, atol=1e-12, msg=lambda m, k=key: f"{k}: {m}"
            )
