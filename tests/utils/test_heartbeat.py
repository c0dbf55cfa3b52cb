"""Signs of life, and what is asked at each of them."""

from __future__ import annotations

import pytest

from utils import heartbeat as module
from utils.heartbeat import heartbeat, quiet_for, watchdog


def test_the_time_since_the_last_one(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    heartbeat()
    now[0] = 107.5
    assert quiet_for() == 7.5
    heartbeat()
    assert quiet_for() == 0


def test_watchdogs_are_asked_while_their_block_runs():
    asked = []
    with watchdog(lambda: asked.append("outer")):
        heartbeat()
        with watchdog(lambda: asked.append("inner")):
            heartbeat()
        heartbeat()
    heartbeat()
    # one is entered with a sign of life, which those around it hear
    assert asked == ["outer", "outer", "outer", "inner", "outer"]


def test_an_error_of_a_watchdog_ends_the_work_and_the_watch():
    def refuse():
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"), watchdog(refuse):
        heartbeat()
    heartbeat()
