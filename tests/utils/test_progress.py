"""Progress: nothing where there is no terminal, and a sign of life either way."""

from __future__ import annotations

import sys

import pytest

from utils.heartbeat import watchdog
from utils.progress import progress_bar


@pytest.mark.parametrize("terminal", [False, True])
def test_every_advance_is_a_sign_of_life(terminal, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    beats = []
    with watchdog(lambda: beats.append(1)), progress_bar("work", 3) as advance:
        for _ in range(3):
            advance(1, note="so far")
    assert len(beats) == 3
    streams = capsys.readouterr()
    assert streams.out == "" and (terminal or streams.err == "")
