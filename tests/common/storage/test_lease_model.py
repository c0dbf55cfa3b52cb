"""The protocol of leases under stops at every step, kills and jumping clocks: never two owners.

The real code runs in a temporary folder with a virtual clock (:mod:`lease_model`). That the model
can fail is tested with faults put into the code, among them that of numbers used again.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from tests.common.storage.lease_model import TERM, TwoOwnersError, World, load, search

SOURCE = Path(__file__).parents[3] / "common" / "storage" / "leases.py"
FACTOR = int(os.environ.get("LEASE_MODEL_FACTOR", "1"))  # make soak: more of everything


def edited(*changes: tuple[str, str]) -> Callable[[str], str]:
    def edit(text: str) -> str:
        for old, new in changes:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        return text

    return edit


UNLINKED = (  # a lease that is given up vanishes, and with it its number
    "_give_up(self._stream, self.record)\n            self._stream",
    "_file(self.target, self.number).unlink(missing_ok=True)\n            self._stream",
)
EXISTENCE = ('return latest is not None and latest.record.get("owner") == self.record["owner"]',
             "return latest is not None")  # fmt: skip
NO_LOCK = ("fcntl.flock(stream, how | fcntl.LOCK_NB)", "pass")
NO_LOOK = ("self.lost = self.lost or not self._is_ours()", "pass")


WORKER = st.integers(0, 2)
STEPS = st.one_of(st.just(1000), st.integers(0, 12))  # 1000: it is not stopped


class Workers(RuleBasedStateMachine):
    """Three workers that take, beat, write, give up, are stopped, woken and killed."""

    module = load(SOURCE)

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.module)

    def teardown(self) -> None:
        self.world.close()

    def _go_on(self, number: int, begin: str, steps: int) -> None:
        """Begin an operation, or wake a worker that was stopped in one; stop it after steps."""
        worker = self.world.workers[number]
        operation = getattr(self.world, begin)
        if worker.thread is None and operation in self.world.choices(worker):
            self.world.begin(worker, operation)
        self.world.advance(worker, steps)

    @rule(number=WORKER, steps=STEPS)
    def claim(self, number: int, steps: int) -> None:
        self._go_on(number, "take", steps)

    @rule(number=WORKER, steps=STEPS)
    def write(self, number: int, steps: int) -> None:
        self._go_on(number, "write", steps)

    @rule(number=WORKER, steps=STEPS)
    def release(self, number: int, steps: int) -> None:
        self._go_on(number, "release", steps)

    @rule(number=WORKER, steps=STEPS)
    def beat(self, number: int, steps: int) -> None:
        self._go_on(number, "beat", steps)

    @rule()
    def expire(self) -> None:
        """Let who has no lease look for a term in which the others are stopped."""
        for worker in self.world.workers:
            if worker.thread is None and worker.lease is None:
                self.world.do(worker, self.world.take)
        self.world.time += 1.1 * TERM

    @rule(terms=st.sampled_from([0.2, 0.6]))
    def pass_time(self, terms: float) -> None:
        self.world.time += terms * TERM

    @rule(number=WORKER, terms=st.sampled_from([-3.0, -0.3, 0.7, 3.0]))
    def jump(self, number: int, terms: float) -> None:
        """Set the clock of a worker."""
        self.world.workers[number].ahead += terms * TERM

    @rule(number=WORKER)
    def kill(self, number: int) -> None:
        """End a worker; another one takes its place."""
        self.world.kill(self.world.workers[number])
        self.world.replace(number)


def run_machine(machine: type, examples: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=30, derandomize=True, deadline=None,
            database=None, print_blob=False, phases=(Phase.generate, Phase.shrink),
        ),
    )  # fmt: skip


def test_no_two_owners_whatever_happens():
    run_machine(Workers, 30 * FACTOR)


def test_all_short_sequences_of_whole_operations():
    assert search(load(SOURCE), 5 + (FACTOR > 1) * 3) is None


def stops_in_two(module, first: str, j: int, k: int) -> tuple[bool, bool]:
    """Stop A before step ``j`` of an operation, B before step ``k`` of taking over, wake both.

    C takes over from both between. Return whether each was stopped at all.
    """
    world = World(module)
    a, b, c = world.workers
    try:
        if first != "take":
            world.do(a, world.take)
        world.begin(a, getattr(world, first))
        world.advance(a, j)
        a_stopped = a.thread is not None
        world.do(b, world.take)  # sees it
        world.time += TERM * 1.1
        if b.lease is None:
            world.begin(b, world.take)
            world.advance(b, k)
        b_stopped = b.thread is not None
        world.do(c, world.take)
        world.time += TERM * 1.1
        for worker in (a, c, b, c, a):
            world.advance(worker, 1000)
            if worker.lease is None:
                world.do(worker, world.take)
            else:
                world.do(worker, world.write)
        return a_stopped, b_stopped
    finally:
        world.close()


@pytest.mark.parametrize("first", ["take", "write", "beat", "release"])
def test_all_pairs_of_stops(first):
    module, stopped = load(SOURCE), set()
    for j, k in itertools.product(range(16), range(18)):
        stopped |= {stops_in_two(module, first, j, k)}
    assert (True, True) in stopped


def finds(module) -> bool:
    try:
        for first in ("write", "take"):
            for j, k in itertools.product(range(16), (0, 4, 100)):
                stops_in_two(module, first, j, k)
    except TwoOwnersError:
        return True
    return False


@pytest.mark.parametrize("fault", [NO_LOCK, NO_LOOK], ids=["without a lock", "without a look"])
def test_the_stops_find_faults(fault):
    assert finds(load(SOURCE, edited(fault)))


@pytest.mark.skipif(FACTOR == 1, reason="takes a minute: make soak")
@pytest.mark.parametrize("faults", [[UNLINKED, EXISTENCE], [NO_LOCK], [NO_LOOK]])
def test_the_machine_finds_faults(faults):
    machine = type("Faulty", (Workers,), {"module": load(SOURCE, edited(*faults))})
    with pytest.raises(TwoOwnersError):
        run_machine(machine, 500)


def test_the_search_finds_numbers_used_again():
    """A is stopped with 1, B takes 2 and gives it up, C gets 1 anew, A takes it for its own."""
    trace = search(load(SOURCE, edited(UNLINKED, EXISTENCE)), 7)
    assert trace is not None and "a term passes" in trace and trace[-1].endswith("write")


def test_workers_on_one_host_follow_the_killed_at_once():
    world = World(load(SOURCE), one_host=True)
    a, b, _ = world.workers
    world.do(a, world.take)
    world.do(b, world.take)
    assert b.lease is None
    world.begin(a, world.write)
    world.advance(a, 8)
    world.kill(a)
    world.do(b, world.take)
    assert b.lease is not None
    world.do(b, world.write)
    world.close()
