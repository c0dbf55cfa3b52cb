"""Progress: nothing where there is no terminal, and a sign of life either way."""

from __future__ import annotations

import sys

import pytest

from utils.heartbeat import watchdog
from utils.progress import progress_bar, row_progress


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


def test_lines_of_a_log_have_rows_rate_and_time_left_and_become_seldom(monkeypatch, caplog):
    caplog.set_level("INFO", "hashing")
    now = [0.0]
    monkeypatch.setattr("utils.progress.time.monotonic", lambda: now[0])
    with row_progress("image features", 120_000, done=20_000) as advance:
        for _ in range(100):  # 1000 rows in 10 s
            now[0] += 10
            advance(1000)
    lines = caplog.messages
    # the 20,000 rows from before are not in the rate
    assert lines[0] == "image features: 22,000 of 120,000 rows, 100 rows/s, 16 min left"
    assert 5 <= len(lines) <= 12
    assert all(not record.file_only for record in caplog.records)  # no bar shows them here


def test_short_work_logs_nothing(caplog):
    caplog.set_level("INFO", "hashing")
    with row_progress("features", 10) as advance:
        advance(10)
    assert not caplog.messages
