"""Leases: one holder at a time, taken over from the dead and the silent, never from the living."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from common.storage import leases as leases
from common.storage.leases import LeaseLostError, Leases

LEASE = 0.3
fork = multiprocessing.get_context("fork")


@pytest.fixture
def target(tmp_path) -> Path:
    return tmp_path / "run.with.dots"


def files(target: Path) -> list[str]:
    return sorted(p.name for p in target.parent.rglob(".claim/*"))


def rewrite(target: Path, **more) -> dict:
    """Change what the lease file of number 1 says."""
    file = leases._file(target, 1)
    record = {**json.loads(file.read_text()), **more}
    file.write_text(json.dumps(record))
    return record


def test_one_at_a_time_and_nothing_is_left(target):
    with Leases().take(target) as held:
        assert held.losses == 0
        assert Leases().take(target) is None
        other = Leases().take(target.with_name("run.with"))  # another thing of a similar name
        assert other is not None
        other.release()
        assert files(target) == ["run.with.dots.1"]
        held.check()
    assert list(target.parent.iterdir()) == []
    with Leases().take(target) as held:
        assert held.number == 1


def hold(target: Path, ready, lease: float) -> None:
    with Leases(lease).take(target, "m"):
        ready.set()
        time.sleep(60)


def start_holder(target: Path, lease: float = 90.0):
    ready = fork.Event()
    process = fork.Process(target=hold, args=(target, ready, lease))
    process.start()
    assert ready.wait(10)
    return process


def test_a_killed_owner_is_followed_at_once_and_counted(target):
    for losses, mark in ((0, "m"), (1, "m"), (2, "m")):
        if losses:
            held = Leases().take(target, mark)
            assert held is not None and held.losses == losses
            rewrite_number = held.number
            os.close(held._stream)  # as if we had been killed: the file stays
            file = leases._file(target, rewrite_number)
            file.write_text(json.dumps({**held.record, "born": "another"}))
        else:
            process = start_holder(target)
            assert Leases().take(target) is None
            process.kill()  # nobody has waited for it yet: a zombie is dead, too
            while leases._started(process.pid) is not None:
                time.sleep(0.001)
    held = Leases().take(target, "a checkpoint later")
    assert held is not None and held.losses == 0
    held.release()
    process.join()


def test_an_owner_elsewhere_is_watched_for_a_lease(target):
    with Leases(LEASE).take(target):
        pass
    held = Leases(LEASE).take(target)  # beats are written by hand
    watcher = Leases(60)  # the owner's lease counts, not the watcher's
    for beats in range(3):
        rewrite(target, place="elsewhere", beats=f"{beats:012d}")
        assert watcher.take(target) is None
        time.sleep(LEASE * 0.6)
    assert watcher.take(target) is None and watcher.beats(target)
    time.sleep(LEASE * 1.2)
    taken = watcher.take(target)
    assert taken is not None and taken.number == 2
    assert files(target) == ["run.with.dots.2"]
    taken.release()
    held._last = leases._clock()
    os.close(held._stream)


def test_a_torn_lease_is_watched_too(target):
    held = Leases(LEASE).take(target)
    leases._file(target, 1).write_text("")
    watcher = Leases(LEASE)
    assert watcher.take(target) is None
    time.sleep(LEASE * 1.1)
    taken = watcher.take(target)
    assert taken is not None
    taken.release()
    os.close(held._stream)


def test_an_owner_that_was_stopped_learns_that_it_lost(target):
    """SIGSTOP for longer than a lease: another takes over; the first finds out and gives up."""
    ready, errors = fork.Event(), fork.SimpleQueue()

    def work() -> None:
        with Leases(LEASE).take(target) as held:
            ready.set()
            try:
                for _ in range(400):
                    time.sleep(0.02)
                    held.check_often()
            except LeaseLostError as error:
                errors.put(str(error))

    process = fork.Process(target=work)
    process.start()
    assert ready.wait(10)
    os.kill(process.pid, signal.SIGSTOP)
    watcher, limit = Leases(LEASE), time.monotonic() + 10
    while (taken := watcher.take(target)) is None:
        assert time.monotonic() < limit
        time.sleep(0.02)
    with taken:
        os.kill(process.pid, signal.SIGCONT)
        process.join(10)
        assert "taken over by another worker" in errors.get()
        taken.check()
        assert files(target) == [f"run.with.dots.{taken.number}"]


def test_an_owner_that_was_stopped_but_not_missed_goes_on(target):
    held = Leases(LEASE).take(target)
    time.sleep(LEASE)  # nobody watched
    held.check()
    assert held.number == 2 and Leases(LEASE).take(target) is None
    held.release()
    assert list(target.parent.iterdir()) == []


def test_an_owner_that_was_stopped_while_another_came_and_went_has_lost(target):
    held = Leases().take(target)
    leases._file(target, 1).unlink()  # by the other
    held._last -= 1000
    with pytest.raises(LeaseLostError):
        held.check()
    held.release()
    assert files(target) == []


def race(target: Path, start, won) -> None:
    start.wait()
    held = Leases().take(target)
    won.put(held is not None)
    time.sleep(0.5)


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_exactly_one_gets_it(target, stale):
    if stale:
        process = start_holder(target)
        process.kill()
        process.join()
    start, won = fork.Event(), fork.SimpleQueue()
    racers = [fork.Process(target=race, args=(target, start, won)) for _ in range(8)]
    for racer in racers:
        racer.start()
    start.set()
    assert sum(won.get() for _ in racers) == 1
    for racer in racers:
        racer.join()


def test_an_old_listing_does_not_make_two(target, monkeypatch):
    """A network file system may show a folder as it was: number 1 seems free, number 2 is there."""
    held = Leases().take(target)
    held._last -= 1000
    held.check()  # leases anew by number 2
    numbers, calls = leases._numbers, iter([[]])
    monkeypatch.setattr(leases, "_numbers", lambda path: next(calls, None) or numbers(path))
    assert Leases().take(target) is None
    assert files(target) == ["run.with.dots.2"]
    held.release()
