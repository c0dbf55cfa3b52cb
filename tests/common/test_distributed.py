"""Two real processes that talk by gloo, against one."""

import os

import numpy as np
import pytest
import torch
import torch.multiprocessing

from common.distributed import gather_rows, local_share
from common.metrics import retrieval_report


def rows_of(rank, world, rows):
    return slice(rows * rank // world, rows * (rank + 1) // world)


def case():
    rng = np.random.default_rng(0)
    return (
        rng.choice([-1, 1], (7, 12)), rng.random((7, 3)) < 0.4,
        rng.choice([-1, 1], (50, 12)), rng.random((50, 3)) < 0.4,
    )  # fmt: skip


def work(rank, world, folder):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    store = torch.distributed.FileStore(str(folder / "store"), world)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)
    rows = torch.arange(10, dtype=torch.float64).view(5, 2)
    local = rows[local_share(5)].requires_grad_()
    gathered = gather_rows(local)
    ((gathered**2).sum() / world).backward()  # every process computes the whole loss
    empty = gather_rows(torch.ones(1 if rank else 0, 3, dtype=torch.int64))
    none = gather_rows(torch.ones(0, 3))
    torch.save(
        {"rows": gathered.detach(), "grad": local.grad, "empty": empty, "none": none},
        folder / f"{rank}.pt",
    )
    report = retrieval_report(*case(), at=("all", 10))
    graded = retrieval_report(*case(), gain="exponential")
    torch.save({"report": report, "graded": graded}, folder / f"report{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gloo")
    torch.multiprocessing.spawn(work, args=(2, folder), nprocs=2)
    return folder


def test_rows_and_gradients_equal_those_of_one_process(folder):
    rows = torch.arange(10, dtype=torch.float64).view(5, 2)
    for rank in range(2):
        saved = torch.load(folder / f"{rank}.pt")
        assert torch.equal(saved["rows"], rows)
        assert torch.equal(saved["grad"], 2 * rows[rows_of(rank, 2, 5)])
        assert saved["empty"].shape == (1, 3) and saved["none"].shape == (0, 3)


def test_reports_equal_those_of_one_process(folder):
    report = retrieval_report(*case(), at=("all", 10))
    graded = retrieval_report(*case(), gain="exponential")
    for rank in range(2):
        saved = torch.load(folder / f"report{rank}.pt")
        assert saved["report"] == report
        assert saved["graded"] == graded


@pytest.mark.parametrize("rows", [0, 1, 5, 8])
def test_shares_hold_every_row_once(rows, monkeypatch):
    monkeypatch.setattr("common.distributed.rank_and_world", lambda: (monkeypatch.rank, 3))
    shared = []
    for rank in range(3):
        monkeypatch.rank = rank
        shared += range(rows)[local_share(rows)]
    assert shared == list(range(rows))


def test_alone_there_is_nothing_to_gather():
    rows = torch.ones(2, 3)
    assert gather_rows(rows) is rows
    assert local_share(5) == slice(0, 5)
