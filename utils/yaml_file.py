"""YAML of unknown origin: its size, depth and aliases are bounded before anything is built of it.

Parsers walk nested values by recursion and copy what an alias stands for, so that a file of a few
kilobytes can end the process or fill the memory. Here the events of a text are counted first, which
takes neither recursion nor copies.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import yaml

from utils.errors import UserError
from utils.files import check_plain_file, readable

MOST_BYTES = 2**20
MOST_VALUES = 10_000  # with what aliases stand for
DEEPEST = 50
MOST_REFERENCES = 20  # ${…}, each of which may repeat a text that has some itself
MOST_DIGITS = 400
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C: eight times faster
_NUMBER = re.compile(r"[-+]?[0-9][0-9a-fA-F_xX:.]*")


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds: dicts, lists, strings, numbers, dates, None.

    Raises:
        UserError: it is missing, no plain file, no valid YAML, or beyond the bounds of this module.
    """
    text = read_yaml_text(path)
    try:
        return yaml.load(text, _LOADER)
    except (yaml.YAMLError, ValueError) as error:  # 2026-99-99 is no date
        raise _invalid(str(path), error) from error


def read_yaml_text(path: Path) -> str:
    """Return the text of a YAML file that is within the bounds.

    Raises:
        UserError: as :func:`read_yaml`.
    """
    check_plain_file(path)
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise _refusal(str(path), f"is {readable(size)} of YAML", readable(MOST_BYTES))
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as YAML ({error}).") from error
    check_yaml(text, str(path))
    return text


def check_yaml(text: str, source: str) -> None:
    r"""Refuse YAML that is beyond the bounds; ``source`` says where it stands.

    Raises:
        UserError: too long, too deep, too many values, an alias that holds itself, or more
            ``${…}`` or digits than anything needs. Invalid YAML passes: its parser has the line.

    >>> check_yaml("a: &a [1, 2]\nb: [*a, *a]", "x.yaml")
    >>> check_yaml("[" * 51, "x.yaml")
    Traceback (most recent call last):
        ...
    utils.errors.UserError: x.yaml: nests its values deeper than 50; no file of settings does.
    """
    if len(text) > MOST_BYTES:
        raise _refusal(source, f"is {readable(len(text))} of YAML", readable(MOST_BYTES))
    if text.count("${") > MOST_REFERENCES:
        raise _refusal(source, "refers to other keys by ${…} more often", str(MOST_REFERENCES))
    with contextlib.suppress(yaml.YAMLError):
        _count(text, source)


def _count(text: str, source: str) -> None:
    """Count values as if every alias were written out."""
    total = 0
    within: list[tuple[str | None, int]] = []  # of open lists and mappings: anchor, total before
    sizes: dict[str, int] = {}
    for event in yaml.parse(text, _LOADER):
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in within):
                raise UserError(f"{source}: not valid YAML (*{event.anchor} holds itself).")
            total += sizes.get(str(event.anchor), 1)
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor:
                sizes[event.anchor] = 1
            is_long = len(event.value) > MOST_DIGITS and event.implicit[0]
            if is_long and _NUMBER.fullmatch(event.value):
                size = f"holds a number of {len(event.value)} characters"
                raise _refusal(source, size, str(MOST_DIGITS))
        elif isinstance(event, yaml.CollectionStartEvent):
            total += 1
            within.append((event.anchor, total - 1))
            if len(within) > DEEPEST:
                raise UserError(
                    f"{source}: nests its values deeper than {DEEPEST}; no file of settings does."
                )
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = within.pop()
            if anchor:
                sizes[anchor] = total - before
        if total > MOST_VALUES:
            repeated = "holds more values, with all that aliases repeat"
            raise _refusal(source, repeated, f"{MOST_VALUES:,}")


def _refusal(source: str, state: str, most: str) -> UserError:
    return UserError(f"{source}: {state}; at most {most} are read, and no settings need more.")


def _invalid(source: str, error: Exception) -> UserError:
    mark = getattr(error, "problem_mark", None)
    line = f":{mark.line + 1}" if mark else ""
    return UserError(f"{source}{line}: not valid YAML ({getattr(error, 'problem', error)}).")
