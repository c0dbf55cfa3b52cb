"""Messages to the terminal and to a run's file."""

from __future__ import annotations

import logging

import pytest

from utils.logs import LOGGER, console_shows, log_to_stderr, logging_to

log = logging.getLogger(LOGGER)


@pytest.fixture(autouse=True)
def _as_before():
    """Leave the project's logger as it was."""
    handlers, level, passes = list(log.handlers), log.level, log.propagate
    yield
    log.handlers[:] = handlers
    log.setLevel(level)
    log.propagate = passes


def test_each_file_has_the_messages_of_its_own_block(tmp_path):
    for name in ("one", "two"):
        with logging_to(tmp_path / name):
            log.info("of %s", name)
        log.error("between")
    assert [(tmp_path / name).read_text().count("of ") for name in ("one", "two")] == [1, 1]
    for name in ("one", "two"):
        (line,) = (tmp_path / name).read_text().splitlines()
        assert line.endswith(f" INFO of {name}")


@pytest.mark.parametrize("error", [None, RuntimeError])
def test_the_level_is_that_of_before(error, tmp_path):
    log.setLevel(logging.WARNING)
    try:
        with logging_to(tmp_path / "log.txt"):
            assert log.level == logging.INFO
            if error:
                raise error
    except RuntimeError:
        pass
    assert log.level == logging.WARNING
    log.setLevel(logging.DEBUG)
    with logging_to(tmp_path / "log.txt"):
        log.debug("details")
    assert "DEBUG details" in (tmp_path / "log.txt").read_text()


def test_some_messages_are_for_the_file_alone(tmp_path, capsys):
    log_to_stderr()
    log_to_stderr()  # a second time changes nothing
    with logging_to(tmp_path / "log.txt"):
        log.error("said elsewhere", extra={"file_only": True})
        log.info("said once")
    text = (tmp_path / "log.txt").read_text()
    assert "said elsewhere" in text and "said once" in text
    streams = capsys.readouterr()
    assert streams.err == "said once\n" and not streams.out


def test_blocks_that_hide_messages_of_the_terminal(tmp_path, capsys):
    log_to_stderr()
    with logging_to(tmp_path / "log.txt"):
        with console_shows(lambda record: record.levelno > logging.INFO):
            with console_shows(lambda record: "secret" not in record.getMessage()):
                log.info("detail")
                log.warning("secret")
                log.warning("shown")
            log.info("detail")
        log.info("after")
    assert capsys.readouterr().err == "shown\nafter\n"
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 5
