"""Launchers: equal results of all of them; the message when a library is missing."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

import main
from common.storage.leases import Leases
from common.storage.run_folder import RunFolder
from runners.sweeps.launchers import local
from runners.sweeps.launchers.local import LocalLauncher, LocalOptions, shares, visible_gpus
from runners.sweeps.queue import Queue, Rules
from runners.sweeps.status import statuses
from runners.sweeps.sweep import expand, make_launcher, read_sweep, run_sweep
from tests.helpers import QUICK, ROOT, outcome
from utils.errors import UserError


@pytest.fixture
def runs(tmp_path, pictures):
    """Return a function: the configurations of short runs below a folder."""

    def make(folder: str, seeds: int, epochs: int = 3) -> list:
        chosen = [w for w in pictures if not w.startswith("bits")]
        words = [*chosen, *QUICK, f"runner.epochs={epochs}"]
        content = {
            "grid": {"method": ["hashnet"], "bits": [8, 16], "seed": list(range(seeds))},
            "set": {k: yaml.safe_load(v) for k, v in (w.split("=", 1) for w in words)},
            "output": str(tmp_path / folder),
        }
        file = tmp_path / "sweep.yaml"
        file.write_text(yaml.safe_dump(content))
        return expand(read_sweep(file), file)

    return make


def results(configs: list) -> list[dict]:
    folders = [RunFolder(Path(c.output) / c.run_name) for c in configs]
    for folder in folders:
        assert folder.status()["state"] == "done"
        assert (folder.path / "log.txt").read_text().count(" done in ") <= 1
    return [outcome(folder) for folder in folders]


def test_cores_are_shared_out():
    assert shares([0, 1, 2, 3, 4, 5, 6, 7], 2) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert shares([1, 3, 5], 3) == [[1], [3], [5]]
    assert shares([1, 3, 5], 4) == [[1], [3], [5], [1]]


@pytest.mark.parametrize(
    ("named", "count", "names"),
    [(None, 2, ["0", "1"]), ("3, 5", 2, ["3", "5"]), ("", 0, []), (None, 0, [])],
)
def test_gpus_by_the_names_that_are_visible(named, count, names, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_gpus(count) == names


class Recorded:
    """Replaces a process and records its arguments and environment."""

    started: list[dict] = []

    def __init__(self, target, args, daemon) -> None:
        self.args = args

    def start(self) -> None:
        names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
        self.started.append({"args": self.args[1:], **{n: os.environ.get(n) for n in names}})


def test_places_on_gpus_and_cores(runs, tmp_path, monkeypatch):
    class Context:
        Process = Recorded

    monkeypatch.setattr(local.multiprocessing, "get_context", lambda kind: Context)
    monkeypatch.setattr(local, "available_cores", lambda: list(range(8)))
    for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Recorded, "started", [])
    queue = Queue.create(tmp_path / "out", runs("out", 1), Rules())
    launcher = LocalLauncher(queue, 9, LocalOptions(slots_per_gpu=2), 2)
    assert launcher.workers == 4
    launcher.start_all()
    assert [m["CUDA_VISIBLE_DEVICES"] for m in Recorded.started] == ["0", "1", "0", "1"]
    assert [m["OMP_NUM_THREADS"] for m in Recorded.started] == ["2"] * 4
    assert [m["args"] for m in Recorded.started] == [(2, [2 * i, 2 * i + 1]) for i in range(4)]
    assert "CUDA_VISIBLE_DEVICES" not in os.environ and "OMP_NUM_THREADS" not in os.environ
    LocalLauncher(queue, 2, LocalOptions(pin_cpus=False), 0).start(1)
    assert Recorded.started[-1] == {
        "args": (4, []), "CUDA_VISIBLE_DEVICES": None, "OMP_NUM_THREADS": "4",
    }  # fmt: skip


def test_invalid_options(runs, tmp_path):
    configs = runs("out", 1)
    queue = Queue.create(tmp_path / "out", configs, Rules())
    for name, launch, message in (
        ("rya", {}, "Unknown launcher 'rya'. Did you mean 'ray'?"),
        ("local", {"lokal": {}}, "Unknown launcher 'lokal'. Did you mean 'local'?"),
        ("local", {"local": {"slots": 1}}, "key 'launch.local.slots' is not known"),
        ("local", {"local": {"slots_per_gpu": -1}}, "launch.local.slots_per_gpu=-1 is not"),
    ):
        with pytest.raises(UserError, match=message):
            make_launcher(name, queue, configs, 2, launch)


@pytest.mark.parametrize(("launcher", "library"), [("ray", "Ray"), ("submitit", "submitit")])
def test_a_library_that_is_missing(launcher, library, runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, launcher, None)
    runs("out", 1)
    assert main.main(["sweep", str(tmp_path / "sweep.yaml"), "--launcher", launcher]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: --launcher {launcher} needs {library}, which is not installed; run pip install "
        "-r requirements-launchers.txt, or give --launcher local."
    )
    assert {p.name for p in (tmp_path / "out").glob(".*")} <= {".claim"}


def test_submitit_with_its_local_executor(runs, tmp_path):
    pytest.importorskip("submitit")
    reference, configs = runs("calm", 1), runs("out", 1)
    run_sweep(reference)
    launch = {"submitit": {"cluster": "local", "cpus": 1}}
    ended = run_sweep(configs, 2, launcher="submitit", launch=launch)
    assert [o.state for o in ended] == ["done"] * 2
    assert results(configs) == results(reference)
    assert list((tmp_path / "out" / "workers").glob("*_result.pkl"))


def holders(output: Path, configs: list) -> set[int]:
    """Return the processes that hold the lease of a run."""
    leases = Leases()
    current = (leases.holder(output / config.run_name) for config in configs)
    return {holder.record["pid"] for holder in current if holder and "pid" in holder.record}


def test_ray_with_workers_killed_at_random(runs, tmp_path):
    pytest.importorskip("ray")
    reference, configs = runs("calm", 6, 12), runs("out", 6, 12)
    run_sweep(reference)
    is_over, kills, rng = threading.Event(), [], random.Random(1)

    def kill_workers() -> None:
        while not is_over.wait(rng.uniform(0.1, 0.6)) and len(kills) < 4:
            for pid in list(holders(tmp_path / "out", configs))[:1]:
                kills.append(pid)
                with contextlib.suppress(ProcessLookupError):  # it ended by itself
                    os.kill(pid, signal.SIGKILL)
                time.sleep(3)

    killer = threading.Thread(target=kill_workers)
    killer.start()
    try:
        ended = run_sweep(configs, 2, launcher="ray", rules=Rules(retries=20))
    finally:
        is_over.set()
        killer.join()
    assert [o.state for o in ended] == ["done"] * len(configs)
    assert kills, "no worker was killed"
    assert results(configs) == results(reference)
    assert {s.state for s in statuses(configs, 1)} == {"done"}
    status = json.loads((tmp_path / "out" / configs[0].run_name / "status.json").read_text())
    assert status["attempts"] >= 1


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_sweep_that_is_terminated_stops_its_workers(runs, tmp_path):
    configs = runs("out", 1, epochs=100_000)
    command = [sys.executable, str(ROOT / "main.py"), "sweep", str(tmp_path / "sweep.yaml")]
    with subprocess.Popen([*command, "--workers", "2"], stderr=subprocess.PIPE, text=True) as sweep:
        try:
            limit = time.monotonic() + 240  # on a busy machine
            while len(workers := holders(tmp_path / "out", configs)) < 2:
                assert sweep.poll() is None and time.monotonic() < limit
                time.sleep(0.1)
            sweep.terminate()
            errors = sweep.communicate(timeout=60)[1]
        finally:
            sweep.kill()
    assert sweep.returncode == 130
    assert (
        "interrupted; what was finished and logged is kept, the same command does the rest"
        in errors
    )
    assert not any(is_running(pid) for pid in workers)
    assert {s.state for s in statuses(configs, 1)} <= {"interrupted", "to do"}
    assert {p.name for p in (tmp_path / "out").glob(".*")} <= {".claim"}  # of the queue
