"""Leases: one holder at a time, taken over from the dead and the silent, never from the living."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from common.storage import leases as leases
from common.storage.leases import LeaseLostError, Leases
from utils.files import write_text

LEASE = 0.3
fork = multiprocessing.get_context("fork")


@pytest.fixture
def target(tmp_path) -> Path:
    return tmp_path / "run.with.dots"


def files(target: Path) -> list[str]:
    return sorted(f"{p.parent.name}/{p.name}" for p in target.parent.rglob(".claim/*/*"))


def rewrite(target: Path, number: int, **more) -> dict:
    """Change what a lease file says."""
    file = leases._file(target, number)
    record = {**json.loads(file.read_text()), **more}
    file.write_text(json.dumps(record))
    return record


def test_one_at_a_time_and_no_number_twice(target):
    with Leases().take(target) as held:
        assert held.losses == 0
        assert Leases().take(target) is None
        other = Leases().take(target.with_name("run.with"))  # another thing of a similar name
        assert other is not None
        other.release()
        assert files(target) == ["run.with.dots/1", "run.with/1"]
        held.check()
    assert Leases().holder(target) is None
    assert [p.name for p in target.parent.iterdir()] == [".claim"]
    for number in (2, 3):
        with Leases().take(target) as held:
            assert held.number == number and held.losses == 0
    assert files(target) == ["run.with.dots/3", "run.with/1"]


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
            os.close(held._stream)  # as if we had been killed
            rewrite(target, held.number, born="another")
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
        rewrite(target, held.number, place="elsewhere", beats=f"{beats:012d}")
        assert watcher.take(target) is None
        time.sleep(LEASE * 0.6)
    assert watcher.take(target) is None and watcher.beats(target)
    time.sleep(LEASE * 1.2)
    taken = watcher.take(target)
    assert taken is not None and taken.number == 3
    assert files(target) == ["run.with.dots/3"]
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
        assert files(target) == [f"run.with.dots/{taken.number}"]


def test_an_owner_that_was_stopped_but_not_missed_goes_on(target):
    held = Leases(LEASE).take(target)
    time.sleep(LEASE)  # nobody watched
    held.check()
    assert held.number == 2 and Leases(LEASE).take(target) is None
    held.release()
    assert files(target) == ["run.with.dots/2"] and Leases().holder(target) is None


def test_an_owner_that_was_stopped_while_others_came_and_went_has_lost(target):
    """A has 1 and is stopped, B takes over and ends, C comes: what A finds is not A's."""
    first = Leases(LEASE).take(target)
    watcher = Leases(LEASE)
    assert watcher.take(target) is None
    time.sleep(LEASE * 1.1)
    watcher.take(target).release()
    third = Leases(LEASE).take(target)
    with pytest.raises(LeaseLostError, match="taken over by another worker"):
        first.check()
    third.check()
    first.release()
    third.check()
    assert Leases().holder(target).number == third.number == 3
    third.release()


def test_a_folder_of_leases_that_was_removed_is_lost(target):
    held = Leases().take(target)
    shutil.rmtree(target.parent / ".claim")
    other = Leases().take(target)
    assert other.number == held.number
    with pytest.raises(LeaseLostError), held.writing():
        raise AssertionError
    held.release()
    other.check()
    other.release()


def test_nobody_takes_over_within_a_write(target):
    held = Leases(LEASE).take(target)
    watcher = Leases(LEASE)
    assert watcher.take(target) is None
    with held.writing(), held.writing():
        time.sleep(LEASE * 1.1)
        assert watcher.take(target) is None
        held.check()  # a heartbeat: it leaves the lock alone
        assert held.number == 1 and watcher.take(target) is None
    taken = watcher.take(target)
    assert taken.number == 2
    with pytest.raises(LeaseLostError), held.writing():
        raise AssertionError
    taken.release()


def test_writes_below_the_target_are_fenced(target):
    held = Leases().take(target)
    held.__enter__()
    write_text(target / "deep" / "file", "ours")
    os.unlink(leases._file(target, 1))
    write_text(target.with_name("other"), "outside")
    with pytest.raises(LeaseLostError):
        write_text(target / "deep" / "file", "not ours")
    assert (target / "deep" / "file").read_text() == "ours"
    assert [p.name for p in (target / "deep").iterdir()] == ["file"]
    held.release()
    write_text(target / "deep" / "file", "nobody's")


def test_a_forked_process_has_no_part_in_a_lease(target):
    with Leases().take(target) as held:
        held._last -= 1000  # a worker of a loader would renew it, and the owner lose it

        def child() -> None:
            held.check_often()
            held.release()
            os._exit(held.lost)

        process = fork.Process(target=child)
        process.start()
        process.join()
        assert process.exitcode == 0 and held.number == 1
        held.check()
        assert held.number == 2


def test_file_systems_without_locks(target, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", flock)
    held = Leases(LEASE).take(target)
    with held.writing():
        pass
    watcher = Leases(LEASE)
    assert watcher.take(target) is None
    time.sleep(LEASE * 1.1)
    taken = watcher.take(target)
    assert taken is not None
    with pytest.raises(LeaseLostError), held.writing():
        raise AssertionError
    taken.release()


def test_who_cannot_be_known_to_be_gone_is_alive(monkeypatch):
    """A process number alone says nothing: other boots, namespaces, hidden processes."""
    ours = leases.this_process()
    assert leases.is_alive(ours)
    assert not leases.is_alive({**ours, "born": "1"})
    assert not leases.is_alive({**ours, "pid": 10**30})
    assert not leases.is_alive({**ours, "pid": "7"})
    assert leases.is_alive({**ours, "born": "1", "place": ours["place"] + "x"})
    assert leases.is_alive({})
    with monkeypatch.context() as other:
        other.setattr(os, "kill", lambda pid, signal: (_ for _ in ()).throw(PermissionError))
        other.setattr(Path, "read_text", lambda path: (_ for _ in ()).throw(FileNotFoundError))
        assert leases.is_alive({**ours, "born": "1"})  # /proc with hidepid
    monkeypatch.setattr(os, "readlink", lambda path: (_ for _ in ()).throw(OSError))
    places = {leases._place.__wrapped__() for _ in range(3)}
    assert len(places) == 3  # two containers of one name must not take each other for dead


def test_what_others_wrote_into_a_lease_is_data(target):
    held = Leases().take(target)
    for more in ({"lease_s": "x"}, {"lease_s": 1e400}, {"losses": "many"}, {"pid": [1]}):
        rewrite(target, 1, place="elsewhere", **more)
        watcher = Leases(0.01)
        assert watcher.take(target) is None
    leases._file(target, 1).write_text("[" * 100_000)
    assert Leases().holder(target).record == {}
    os.close(held._stream)


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
    assert Leases().holder(target).number == 2
    held.check()
    held.release()
