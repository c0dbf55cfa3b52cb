"""Logging to stderr and to a run's ``log.txt``."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from utils.shown import shown

LOGGER = "hashing"


class _Formatter(logging.Formatter):
    """Shows every message on one line, see :mod:`utils.shown`; a traceback keeps its lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - of logging
        """Return the line of a message."""
        record.message = shown(record.message)
        return super().formatMessage(record)

    def formatException(self, ei) -> str:  # type: ignore[no-untyped-def]  # noqa: N802
        """Return the lines of a traceback."""
        return "\n".join(shown(line) for line in super().formatException(ei).split("\n"))


def _warning_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: object = None
) -> str:
    """Return a library's warning as one line."""
    return f"{category.__name__}: {shown(message)} ({Path(filename).name}:{lineno})\n"


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
    warnings.formatwarning = _warning_line
    logger = logging.getLogger(LOGGER)
    logger.setLevel(level)
    logger.propagate = False
    if not any(isinstance(handler, _Console) for handler in logger.handlers):
        handler = _Console()
        handler.setFormatter(_Formatter("%(message)s"))
        logger.addHandler(handler)


@contextlib.contextmanager
def logging_to(file: Path) -> Iterator[None]:
    """Append the project's messages to ``file`` as well, with times, while the block runs."""
    logger = logging.getLogger(LOGGER)
    handler = logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s"))
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
