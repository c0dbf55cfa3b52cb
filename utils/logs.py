"""Logging: to stderr for the person, to a run's ``log.txt`` for later."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

LOGGER = "hashing"


def log_to_stderr(level: int = logging.INFO) -> None:
    """Send the project's messages to stderr, once; the standard output is for results."""
    logger = logging.getLogger(LOGGER)
    logger.setLevel(level)
    logger.propagate = False
    if not any(getattr(h, "is_console", False) for h in logger.handlers):
        handler = logging.StreamHandler(sys.stderr)
        handler.is_console = True  # type: ignore[attr-defined]
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)


@contextlib.contextmanager
def logging_to(file: Path) -> Iterator[None]:
    """Append the project's messages to ``file`` as well, with times, while the block runs."""
    logger = logging.getLogger(LOGGER)
    handler = logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    previous = logger.level
    logger.addHandler(handler)
    logger.setLevel(min(previous or logging.INFO, logging.INFO))
    try:
        yield
    finally:
        logger.setLevel(previous)
        logger.removeHandler(handler)
        handler.close()
