"""A sweep under 200 SIGKILLs, with SIGSTOPs and jumping clocks among them, against a calm one.

python tests/soak/soak_sweep.py                     # minutes; make soak
python tests/soak/soak_sweep.py --kills 40 --seed 3

Workers of every other number claim to be on a host of their own, so that of these a killed one is
missed only after a lease. Stops last up to three leases, clocks jump by as much, forwards and back.
There are more
workers than runs, so that some always watch. When a sweep ends before all kills are done, the next
one starts in a new folder. Every run of every
sweep is compared with that of the calm one: codes, labels, rows, metrics, epochs of the history.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

import yaml  # noqa: E402

from common.config.run_config import RunConfig  # noqa: E402
from common.storage import leases  # noqa: E402
from runners.sweeps.launchers import local  # noqa: E402
from runners.sweeps.launchers.base import Launcher, Worker, supervise  # noqa: E402
from runners.sweeps.queue import Queue, Rules, folder_of  # noqa: E402
from runners.sweeps.sweep import expand, read_sweep, run_sweep  # noqa: E402
from runners.training.history import read_history  # noqa: E402
from tests.helpers import outcome  # noqa: E402

LEASE_S = 1.0
fork = multiprocessing.get_context("fork")
SETTINGS = {
    "dataset": "creatures_image", "dataset.rows": 480, "dataset.split.query": 2,
    "dataset.split.train": 10, "backbone": "pixels", "backbone.size": 8, "runner.epochs": 20,
    "runner.batch_size": 16, "runner.threads": 1, "runner.device": "cpu",
    "runner.tensorboard": False,
}  # fmt: skip


class SoakedWorker(Worker):
    """A copy of this process whose clocks are set from here."""

    def __init__(self, queue: Queue, number: int, log: Path) -> None:
        self.ahead = fork.Value("d", 0.0, lock=False)
        self.process = fork.Process(target=self._work, args=(str(queue.folder), number, log))
        self.process.start()

    def _work(self, queue: str, number: int, log: Path) -> None:
        sys.stderr = open(log, "a", buffering=1)  # noqa: SIM115 - the process ends with it
        refuse = leases.Lease._refuse_if_lost

        def refuse_and_tell(lease: leases.Lease) -> None:
            if lease.lost:
                print("lost", lease.record["owner"], file=sys.stderr)
            refuse(lease)

        leases.Lease._refuse_if_lost = refuse_and_tell  # type: ignore[method-assign]
        clock, observers_clock, place = leases._clock, leases._observers_clock, leases._place()
        patched: dict[str, Any] = {
            "_clock": lambda: clock() + self.ahead.value,
            "_observers_clock": lambda: observers_clock() + self.ahead.value,
            "_place": lambda: f"{place} {number if number % 2 else ''}",
        }
        vars(leases).update(patched)
        local._work(queue, 1, [])

    def is_alive(self) -> bool:
        return self.process.is_alive()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


class Soaking(Launcher):
    """Starts such workers."""

    def __init__(self, queue: Queue, workers: int, log: Path) -> None:
        super().__init__(queue, workers)
        self.log = log
        self.started: list[SoakedWorker] = []

    def start(self, number: int) -> SoakedWorker:
        self.started.append(SoakedWorker(self.queue, number, self.log))
        return self.started[-1]


def send(pid: int, what: signal.Signals) -> None:
    """Send a signal to a worker, which may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, what)


def disturb(
    launcher: Soaking, rng: random.Random, counts: Counter[str], kills: int, over: threading.Event
) -> None:
    """Kill, stop and wake workers, and set their clocks, until enough are killed."""
    wakes: list[tuple[float, int]] = []
    while not over.wait(rng.uniform(0.02, 0.3)) and counts["kills"] < kills:
        for at, pid in [wake for wake in wakes if wake[0] < time.monotonic()]:
            send(pid, signal.SIGCONT)
            wakes.remove((at, pid))
        alive = [worker for worker in launcher.started if worker.is_alive()]
        if not alive:
            continue
        worker, what = rng.choice(alive), rng.choice(["kills", "stops", "jumps"])
        pid = worker.process.pid
        assert pid is not None
        if what == "kills":
            send(pid, signal.SIGKILL)
            wakes = [wake for wake in wakes if wake[1] != pid]
        elif what == "jumps":
            worker.ahead.value += rng.uniform(-3, 3) * LEASE_S
        elif pid not in [other for _, other in wakes]:
            send(pid, signal.SIGSTOP)
            wakes.append((time.monotonic() + rng.uniform(0.1, 3) * LEASE_S, pid))
        counts[what] += 1
    for _, pid in wakes:
        send(pid, signal.SIGCONT)


def write_sweep(folder: Path, seeds: int) -> Path:
    """Write the sweep file and return its path."""
    grid = {"method": ["hashnet", "csq"], "bits": [8, 16], "seed": list(range(seeds))}
    content = {"grid": grid, "set": SETTINGS, "output": str(folder / "calm")}
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


def soak(
    configs: list[RunConfig], output: Path, arguments: argparse.Namespace, round_seed: int,
    counts: Counter[str],
) -> None:  # fmt: skip
    """Execute a sweep while it is disturbed."""
    log = output.with_suffix(".log")
    queue = Queue.create(output, configs, Rules(retries=10_000, lease_s=LEASE_S))
    launcher, over = Soaking(queue, arguments.workers, log), threading.Event()
    rng = random.Random(round_seed)
    thread = threading.Thread(target=disturb, args=(launcher, rng, counts, arguments.kills, over))
    thread.start()
    try:
        supervise(launcher, lambda name: None)
    finally:
        over.set()
        thread.join()
    lines = log.read_text().splitlines()
    counts["lost leases"] += len({line for line in lines if line.startswith("lost ")})
    counts["attempts"] += sum(folder_of(c).status().get("attempts", 0) for c in configs)
    queue.remove()


def differences(calm: list[RunConfig], configs: list[RunConfig]) -> list[str]:
    """Return the names of runs that ended otherwise than the calm ones."""
    found = []
    for expected, config in zip(calm, configs, strict=True):
        folders = folder_of(expected), folder_of(config)
        epochs = [[record.epoch for record in read_history(f.path)] for f in folders]
        if not folders[1].is_done or epochs[0] != epochs[1] or outcome(folders[0]) != outcome(
            folders[1]
        ):  # fmt: skip
            found.append(config.run_name)
    return found


def main() -> int:
    """Soak, print the figures, and return 1 if a run differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--workers", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=1, help="of 4 settings each")
    parser.add_argument("--seed", type=int, default=0, help="of the disturbances")
    arguments = parser.parse_args()
    counts, differing = Counter[str](), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["HASHING_CACHE"] = str(folder / "cache")
        file = write_sweep(folder, arguments.seeds)
        calm = expand(read_sweep(file), file)
        start = time.perf_counter()
        assert {o.state for o in run_sweep(calm)} == {"done"}
        print(f"calm: {len(calm)} runs in {time.perf_counter() - start:.0f} s", flush=True)
        for turn in range(1000):
            if counts["kills"] >= arguments.kills:
                break
            output = folder / f"soaked{turn}"
            configs = expand(read_sweep(file), file, output=str(output))
            soak(configs, output, arguments, 1000 * arguments.seed + turn, counts)
            differing += differences(calm, configs)
            counts["runs compared"] += len(configs)
            print(f"{dict(counts)}, {len(differing)} differences", flush=True)
        print(f"{time.perf_counter() - start:.0f} s; differing: {differing or 'none'}")
    return bool(differing)


if __name__ == "__main__":
    raise SystemExit(main())
