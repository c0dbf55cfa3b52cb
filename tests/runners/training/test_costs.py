"""Seconds by phase and peak memory."""

from __future__ import annotations

import mmap

import numpy as np
import pytest
import torch

from runners.training import costs
from runners.training.costs import Clock, PeakMemory

CPU = torch.device("cpu")


class Hands:
    """A clock that only a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def hands(monkeypatch):
    hands = Hands()
    monkeypatch.setattr(costs.time, "perf_counter", lambda: hands.now)
    return hands


def test_of_phases_within_phases_each_second_counts_once(hands):
    clock = Clock()
    with clock.phase("outer"):
        hands.sleep(2)
        for _ in range(2):
            with clock.phase("inner"):
                hands.sleep(3)
                with clock.phase("innermost"):
                    hands.sleep(5)
        hands.sleep(7)
    assert clock.seconds == {"innermost": 10, "inner": 6, "outer": 9}


def test_a_phase_that_fails_counts_and_is_left(hands):
    clock = Clock()
    with pytest.raises(ValueError), clock.phase("outer"), clock.phase("inner"):
        hands.sleep(1)
        raise ValueError
    with clock.phase("next"):
        hands.sleep(4)
    assert clock.seconds == {"inner": 1, "outer": 0, "next": 4}


def test_waiting_counts_the_wait_and_not_the_use(hands):
    def slow():
        for item in (None, 1):  # None is an item, not the end
            hands.sleep(2)
            yield item

    clock, items = Clock(), []
    with clock.phase("use"):
        for item in clock.waiting("wait", slow()):
            items.append(item)
            hands.sleep(3)
    assert items == [None, 1] and clock.seconds == {"wait": 4, "use": 6}


def test_the_peak_is_of_what_came_since():
    before = PeakMemory(CPU)
    if before.of != "run":
        pytest.skip("the kernel does not let us set its mark back")
    large = mmap.mmap(-1, 64_000_000)  # goes back to the kernel at once, whatever malloc keeps
    held = np.frombuffer(large, np.uint8)
    held[:] = 1
    grown = before.read()["peak_mb"]
    del held
    large.close()
    after = PeakMemory(CPU).read()
    assert grown - after["peak_mb"] > 50 and after["of"] == "run"


def test_without_proc_the_peak_is_of_the_process(tmp_path, monkeypatch):
    monkeypatch.setattr(costs, "_PROC", tmp_path / "nothing")
    memory = PeakMemory(CPU).read()
    assert memory["of"] == "process so far" and memory["peak_mb"] > 10


def test_on_a_gpu_what_tensors_held_is_told_too(monkeypatch):
    set_back = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", set_back.append)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3_250_000)
    device = torch.device("cuda", 0)
    assert PeakMemory(device).read()["device_peak_mb"] == 3.2 and set_back == [device]
