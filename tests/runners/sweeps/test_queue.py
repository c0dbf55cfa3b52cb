"""Queues of sweeps: killed, stuck and remote workers lose no run and execute none twice."""

from __future__ import annotations

import errno
import multiprocessing
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
from common.storage.run_folder import RunFolder
from runners.sweeps import sweep
from runners.sweeps.launchers import local
from runners.sweeps.launchers.base import Launcher, Worker, supervise
from runners.sweeps.queue import Queue, Rules, disk_is_full, folder_of, run_queue
from runners.sweeps.status import estimate, group_by_data, statuses, summary
from runners.sweeps.sweep import expand, read_sweep, run_sweep
from tests.helpers import QUICK, ROOT, outcome, write_no_codes
from utils.errors import UserError
from utils.heartbeat import heartbeat
from utils.progress import duration

fork = multiprocessing.get_context("fork")


class ForkedWorker(Worker):
    """A worker that needs no start-up: a copy of this process."""

    def __init__(self, queue: Queue) -> None:
        self.process = fork.Process(target=self._work, args=(str(queue.folder),))
        self.process.start()

    @staticmethod
    def _work(queue: str) -> None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - the process ends with it
        local._work(queue, 1, [])

    def is_alive(self) -> bool:
        return self.process.is_alive()

    def stop(self) -> None:
        self.process.terminate()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


class Forking(Launcher):
    """Starts such workers and keeps a list of them."""

    def __init__(self, queue: Queue, workers: int) -> None:
        super().__init__(queue, workers)
        self.started: list[ForkedWorker] = []

    def start(self, number: int) -> ForkedWorker:
        self.started.append(ForkedWorker(self.queue))
        return self.started[-1]


@pytest.fixture
def sweep_file(tmp_path, pictures):
    """Return a function that writes a sweep of short runs: words of ``set``, then the grid."""

    def write(grid: dict, *words: str, name: str = "sweep", **content) -> Path:
        chosen = [w for w in pictures if not w.startswith("bits")]
        settings = dict(word.split("=", 1) for word in [*chosen, *QUICK, *words])
        content |= {"grid": grid, "set": {k: yaml.safe_load(v) for k, v in settings.items()}}
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump({"output": str(tmp_path / "out"), **content}))
        return file

    return write


def configs_of(file: Path, output: Path | None = None) -> list:
    return expand(read_sweep(file), file, output=str(output) if output else None)


def finished(configs: list) -> list[dict]:
    """Return the results of the runs; each must have been done exactly once."""
    for config in configs:
        folder = folder_of(config)
        assert folder.status()["state"] == "done"
        assert (folder.path / "log.txt").read_text().count(" done in ") <= 1
    return [outcome(folder_of(config)) for config in configs]


def holds_only_runs(output: Path) -> bool:
    """Return whether a sweep has left nothing but runs."""
    return not [p.name for p in output.glob(".*") if p.name != ".claim"]


TWELVE = {"method": ["hashnet"], "bits": [8, 16], "seed": list(range(6))}


def test_workers_killed_at_random_lose_nothing(sweep_file, tmp_path):
    file = sweep_file(TWELVE, "runner.epochs=12")
    reference = configs_of(file, tmp_path / "calm")
    assert {o.state for o in run_sweep(reference)} == {"done"}
    configs = configs_of(file)
    queue = Queue.create(tmp_path / "out", configs, Rules(retries=100))
    launcher, rng, kills, is_over = Forking(queue, 3), random.Random(0), [], threading.Event()

    def kill_workers() -> None:
        while not is_over.wait(rng.uniform(0.02, 0.25)) and len(kills) < 25:
            alive = [w.process.pid for w in launcher.started if w.is_alive()]
            if alive:
                kills.append(rng.choice(alive))
                os.kill(kills[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill_workers)
    killer.start()
    ended: list[str] = []
    supervise(launcher, ended.append)
    is_over.set()
    killer.join()
    assert sorted(ended) == sorted(config.run_name for config in configs)
    assert {queue.outcome(name) for name in ended} == {("done", "")}
    queue.remove()
    assert len(kills) >= 5 and len(launcher.started) > 3
    assert finished(configs) == finished(reference)
    assert any(folder_of(c).status()["attempts"] > 1 for c in configs), "no run was ever hit"


def test_two_hosts_share_one_sweep(sweep_file, tmp_path, toy_root):
    """Two commands with homes and caches of their own, one folder of runs."""
    grid = {"method": ["hashnet"], "bits": [8, 16], "seed": [0, 1, 2]}
    file = sweep_file(grid, "runner.epochs=20")
    reference = configs_of(file, tmp_path / "calm")
    run_sweep(reference)
    code = (
        "import pathlib, sys\nfrom runners.sweeps.sweep import expand, read_sweep, run_sweep\n"
        "from utils.logs import log_to_stderr\nlog_to_stderr()\nfile = pathlib.Path(sys.argv[1])\n"
        "run_sweep(expand(read_sweep(file), file))"
    )
    command, hosts = [sys.executable, "-c", code, str(file)], []
    for name in ("one", "two"):
        home = tmp_path / name
        home.mkdir()
        variables = {"HOME": str(home), "HASHING_CACHE": str(home / "cache"), "TMPDIR": str(home)}
        with open(home / "err", "w") as errors:
            hosts.append(
                subprocess.Popen(
                    command, cwd=ROOT, env={**os.environ, **variables}, stderr=errors,
                    stdout=subprocess.DEVNULL,
                )
            )  # fmt: skip
    assert [host.wait(120) for host in hosts] == [0, 0]
    configs = configs_of(file)
    assert finished(configs) == finished(reference)
    started = [(tmp_path / name / "err").read_text().count("\nrun ") for name in ("one", "two")]
    assert sum(started) == len(configs), "a run was done by both, or by none"
    assert holds_only_runs(tmp_path / "out")


def test_only_what_is_new_is_run(sweep_file, capfd):
    grid = {"method": ["lsh"], "bits": [8]}
    assert main.main(["sweep", str(sweep_file(grid))]) == 0
    grid = {"method": ["lsh", "itq"], "bits": [8, 12]}
    file = sweep_file(grid)
    assert main.main(["sweep", str(file), "--dry-run"]) == 0
    output = capfd.readouterr()
    assert [line.split()[0] for line in output.out.splitlines()[-4:]] == ["done", "to", "to", "to"]
    assert "4 runs: 1 done, 3 to do; about " in output.err
    assert "with 1 worker (from 1 finished runs)" in output.err
    assert main.main(["sweep", str(file)]) == 0
    assert "4 runs: 1 done before, 3 to do" in capfd.readouterr().err


FAILING = '''"""Fails at its second epoch as often as a file says."""

from pathlib import Path

from common.registry import RUNNERS
from runners.standard import StandardConfig, StandardRunner
from utils.errors import UserError


@RUNNERS.register("{name}", config=StandardConfig)
class Failing(StandardRunner):
    def _evaluate_epoch(self):
        counter = Path("{counter}")
        left = int(counter.read_text())
        if self.state.epoch == 2 and left:
            counter.write_text(str(left - 1))
            raise {error}
        return super()._evaluate_epoch()
'''


@pytest.fixture
def failing(tmp_path, sweep_file):
    """Return a function that gives a sweep of one run, which fails ``times`` times."""

    def make(times: int, error: str = "RuntimeError('bad luck')", **content) -> Path:
        name = f"failing{abs(hash((times, error))) % 10**8}"
        plugin = tmp_path / f"{name}.py"
        (tmp_path / "left").write_text(str(times))
        plugin.write_text(FAILING.format(name=name, counter=tmp_path / "left", error=error))
        words = [f"runner.name={name}", "eval.select=last"]
        return sweep_file(
            {"method": ["csq"], "bits": [8]}, *words, plugins=[str(plugin)], **content
        )

    return make


@pytest.mark.parametrize(("times", "state", "attempts"), [(1, "done", 2), (5, "failed", 2)])
def test_a_failed_run_is_tried_again_a_bounded_number_of_times(times, state, attempts, failing):
    file = failing(times)
    (ended,) = run_sweep(configs_of(file), rules=read_sweep(file).rules)
    assert ended.state == state
    folder = folder_of(ended.config)
    assert folder.status()["attempts"] == attempts
    text = (folder.path / "log.txt").read_text()
    assert text.count("failed: RuntimeError: bad luck") == min(times, attempts)
    assert "resumed after epoch 1 of 3" in text


def test_a_run_that_was_given_up_is_left_alone_until_asked_for(failing, capfd):
    file = failing(3)
    assert main.main(["sweep", str(file)]) == 1
    assert "RuntimeError: bad luck" in capfd.readouterr().err
    assert main.main(["sweep", str(file)]) == 1
    errors = capfd.readouterr().err
    assert "0 to do, 1 failed before (--retry-failed tries them again)" in errors
    assert main.main(["sweep", str(file), "--dry-run"]) == 0
    assert capfd.readouterr().out.startswith("failed")
    assert main.main(["sweep", str(file), "--retry-failed"]) == 0
    assert "csq" in capfd.readouterr().out


def test_a_mistake_is_not_tried_again(failing):
    (ended,) = run_sweep(configs_of(failing(9, "UserError('no such thing')")), rules=Rules(5))
    assert ended.state == "failed" and folder_of(ended.config).status()["attempts"] == 1


def test_a_full_disk_stops_the_sweep_and_blames_no_run(failing):
    full = "OSError(28, 'No space left on device')"
    configs = configs_of(failing(1, full))
    with pytest.raises(UserError, match="The disk of .* is full; free some space and sweep again"):
        run_sweep(configs)
    assert [o.state for o in run_sweep(configs)] == ["done"]  # there is space again


def test_a_full_disk_is_known_behind_other_errors():
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    wrapped = UserError("Cannot write")
    wrapped.__cause__ = full
    assert disk_is_full(full) and disk_is_full(wrapped)
    assert disk_is_full(RuntimeError("I/O error: No space left on device (os error 28)"))
    assert not disk_is_full(OSError(errno.EACCES, "no")) and not disk_is_full(None)


def hang_once(folder: Path) -> None:
    flag = folder / "hung"
    if not flag.exists():
        flag.write_text("")
        time.sleep(60)


def test_a_stuck_worker_ends_itself_and_another_resumes(sweep_file, tmp_path, monkeypatch):
    from runners.standard import StandardRunner

    evaluate = StandardRunner._evaluate_epoch

    def stuck(self):
        if self.state.epoch == 2:
            hang_once(tmp_path)
        return evaluate(self)

    monkeypatch.setattr(StandardRunner, "_evaluate_epoch", stuck)
    configs = configs_of(sweep_file({"method": ["csq"], "bits": [8]}))
    queue = Queue.create(tmp_path / "out", configs, Rules(retries=1, hang_after_s=1.5))
    launcher = Forking(queue, 1)
    supervise(launcher, lambda name: None)
    assert len(launcher.started) == 2
    log = (folder_of(configs[0]).path / "log.txt").read_text()
    assert "no sign of life for 2 s; this worker ends itself" in log
    assert "resumed after epoch 1 of 3" in log
    assert folder_of(configs[0]).is_done


def test_a_run_that_kills_its_workers_is_given_up(sweep_file, tmp_path, monkeypatch):
    from runners.base import Runner

    monkeypatch.setattr(Runner, "_run", lambda self: os.kill(os.getpid(), signal.SIGKILL))
    configs = configs_of(sweep_file({"method": ["csq"], "bits": [8, 16]}))
    queue = Queue.create(tmp_path / "out", configs, Rules(retries=1))
    launcher = Forking(queue, 2)
    supervise(launcher, lambda name: None)
    for config in configs:
        state, reason = queue.outcome(config.run_name)
        assert state == "failed" and "a worker process died" in reason


def test_interrupting_leaves_runs_that_resume(sweep_file, tmp_path):
    configs = configs_of(sweep_file({"method": ["hashnet"], "bits": [8, 16]}, "runner.epochs=4000"))
    queue = Queue.create(tmp_path / "out", configs, Rules())
    launcher = Forking(queue, 2)

    def interrupt() -> None:
        limit = time.monotonic() + 30
        while not all(folder_of(c).mark for c in configs) and time.monotonic() < limit:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    # a shell's background job, as tests may be, ignores SIGINT from birth
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        supervise(launcher, lambda name: None)
    signal.signal(signal.SIGINT, before)
    thread.join()
    queue.remove()
    assert not any(worker.is_alive() for worker in launcher.started)
    assert [folder_of(c).status()["state"] for c in configs] == ["interrupted"] * 2
    assert [s.state for s in statuses(configs, 1)] == ["interrupted"] * 2
    assert holds_only_runs(tmp_path / "out")


def test_a_queue_whose_command_was_killed_is_removed(sweep_file, tmp_path):
    configs = configs_of(sweep_file({"method": ["lsh"], "bits": [8]}))

    def abandon() -> None:
        Queue.create(tmp_path / "out", configs, Rules())
        os._exit(0)

    process = fork.Process(target=abandon)
    process.start()
    process.join()
    assert list((tmp_path / "out" / ".sweep").iterdir())
    run_sweep(configs)
    assert holds_only_runs(tmp_path / "out")


def test_a_worker_of_a_removed_queue_stops(sweep_file, tmp_path):
    queue = Queue.create(tmp_path / "o", configs_of(sweep_file({"method": ["lsh"]})), Rules())
    queue.remove()
    assert queue.stop_reason() == "the sweep has ended"
    heartbeat()


def test_time_is_estimated_from_runs_alike(sweep_file):
    configs = configs_of(sweep_file({"method": ["lsh", "itq"], "bits": [8, 16]}))
    states = statuses(configs, 1)
    assert estimate(states) == (None, 0)
    assert summary(states, 1) == "4 runs: 4 to do; no finished run to estimate the time from"
    for config, seconds in zip(configs[::3], (100.0, 400.0), strict=True):  # lsh 8, itq 16
        folder = RunFolder.create(config)
        write_no_codes(folder.codes_file)
        folder.metrics_file.write_text("{}")
        folder.set_done(seconds=seconds + 900, once_s=900.0)  # features, which others find
    states = statuses(configs, 1)
    assert estimate(states) == (500.0, 2)  # lsh 16 like lsh 8, itq 8 like itq 16
    assert summary(states, 2) == (
        "4 runs: 2 done, 2 to do; about 4 min with 2 workers (from 2 finished runs)"
    )
    assert duration(200_000) == "2 d 8 h"


def test_runs_of_one_dataset_are_done_in_a_row(sweep_file):
    grid = {"bits": [8, 16], "dataset.split.seed": [3, 4], "method": ["lsh"]}
    configs = configs_of(sweep_file(grid))
    assert [c.dataset.config.split.seed for c in configs] == [3, 4, 3, 4]
    assert [c.dataset.config.split.seed for c in group_by_data(configs)] == [3, 3, 4, 4]


def test_a_thousand_runs_are_listed_skipped_and_reported(sweep_file, tmp_path, capfd):
    grid = {"method": ["lsh", "itq"], "bits": [8, 16, 24, 32, 40], "seed": list(range(100))}
    file = sweep_file(grid)
    configs = configs_of(file)
    assert len(configs) == 1000
    run_sweep(configs[:1])
    example = folder_of(configs[0])
    for config in configs[1:]:
        folder = RunFolder.create(config)
        metrics = example.metrics_file.read_text().replace('"seed": 0', f'"seed": {config.seed}')
        metrics = metrics.replace('"bits": 8', f'"bits": {config.bits}', 1)
        folder.metrics_file.write_text(metrics.replace('"lsh"', f'"{config.method}"', 1))
        for name in ("codes.h5", "status.json"):
            os.link(example.path / name, folder.path / name)
        folder.set_done()
    assert main.main(["sweep", str(file), "--dry-run"]) == 0
    assert len(capfd.readouterr().out.splitlines()) == 1000
    assert {o.state for o in run_sweep(configs_of(file))} == {"skipped"}
    assert main.main(["report", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize("word", ["retries", "lease_s", "hang_after_s"])
def test_rules_that_are_not_accepted(word, sweep_file):
    file = sweep_file({"method": ["lsh"]}, **{word: -1})
    with pytest.raises(UserError, match=f"{word}=-1(.0)? is not accepted; 0"):
        assert read_sweep(file).rules


def test_a_finished_queue_may_be_run_again(sweep_file, tmp_path):
    configs = configs_of(sweep_file({"method": ["lsh"], "bits": [8]}))
    queue = Queue.create(tmp_path / "out", configs, Rules())
    run_queue(queue)
    run_queue(queue)
    assert queue.outcome(configs[0].run_name) == ("done", "")


def test_time_left_does_not_count_for_every_run_what_is_made_once(monkeypatch, caplog):
    caplog.set_level("INFO", "hashing")
    now = iter((0.0, 1010.0))  # the first run: 1000 s of features, 10 s of its own
    monkeypatch.setattr("runners.sweeps.sweep.time.perf_counter", lambda: next(now))

    class Ended:
        def outcome(self, name):
            return "done", ""

        def run_folder(self, name):
            return self

        def status(self):
            return {"seconds": 1010.0, "once_s": 1000.0}

    runs = {name: None for name in "abcd"}
    with sweep._reporting(Ended(), runs, {}) as ended:
        ended("a")
    assert caplog.messages == ["[1/4] a done (about 30 s left)"]
