"""Logging to stderr and to a run's ``log.txt``."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

LOGGER = "hashing"


class _Console(logging.StreamHandler):
    """Writes to the present ``sys.stderr``, which notebooks and tests replace."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message, unless it is for the file only (``extra={"file_only": True}``)."""
        if getattr(record, "file_only", False):
            return
        self.stream = sys.stderr
        super().emit(record)


def log_to_stderr(level: int = logging.INFO) -> None:
    """Send the project's messages to stderr; the standard output is for results."""
    logger = logging.getLogger(LOGGER)
    logger.setLevel(level)
    logger.propagate = False
    if not any(isinstance(handler, _Console) for handler in logger.handlers):
        handler = _Console()
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


@contextlib.contextmanager
def console_shows(wanted: Callable[[logging.LogRecord], bool]) -> Iterator[None]:
    """Show of the project's messages those that are ``wanted``, while the block runs; not in files.

    Blocks may be nested; a message is then shown if all want it.
    """
    handlers = [h for h in logging.getLogger(LOGGER).handlers if isinstance(h, _Console)]
    for handler in handlers:
        handler.addFilter(wanted)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(wanted)
