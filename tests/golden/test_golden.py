"""Every recorded file is a test; see README.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden.harness import NUMBERS, check_file


@pytest.mark.usefixtures("one_thread")
def test_recorded_numbers(golden_file: Path) -> None:
    # a recording from elsewhere may carry notes of its own among its constants
    check_file(golden_file, every_constant=NUMBERS in golden_file.resolve().parents)
