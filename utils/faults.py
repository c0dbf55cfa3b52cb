"""Errors that no code foresaw: what the user can mend is told apart from faults of the program.

The boundary: refusals of the operating system, names that are not UTF-8 or hold a NUL, numbers and
nesting beyond what Python reads, missing memory or libraries, and whatever a plugin's code raises
are the user's to mend. Everything else is a fault of the program.
"""

from __future__ import annotations

import os
import tempfile
import traceback
from pathlib import Path

from utils.errors import UserError
from utils.shown import first_line, shown

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = "plugin_"
"""How the names of modules begin that :func:`common.registry.load_plugin` makes."""

_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")  # PyTorch's words


def mendable(error: BaseException) -> UserError | None:
    """Return the sentence for what the user can mend, or None where the program is at fault."""
    plugin = plugin_line(error)
    if plugin is not None:
        return UserError(
            f"Plugin {plugin} raised {type(error).__name__}: {first_line(error)}; mend it there"
            f"{_kept(error)}."
        )
    text = str(error)
    sentence = None
    if isinstance(error, OSError):
        sentence = f"{_of_system(error)}."
    elif isinstance(error, UnicodeEncodeError) and "surrogate" in error.reason:
        sentence = f"A name is not UTF-8: '{shown(error.object, 300)}'; rename it."
    elif isinstance(error, UnicodeDecodeError):
        sentence = f"A file is not UTF-8 text ({text}); save it as UTF-8."
    elif isinstance(error, ValueError) and "embedded null" in text:
        sentence = "A path holds a NUL byte (\\x00), which no file system takes; leave it out."
    elif isinstance(error, ValueError) and "integer string conversion" in text:
        sentence = "A whole number of thousands of digits is not accepted; give a smaller one."
    elif isinstance(error, RecursionError):
        sentence = "A file or setting is nested too deeply to be read; make it flatter."
    elif isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY):
        sentence = (
            f"There is not enough memory ({first_line(error)}); smaller batches, fewer rows or "
            "bits, or another device may do."
        )
    elif isinstance(error, ModuleNotFoundError) and not _is_ours(error.name or ""):
        sentence = (
            f"Library '{error.name}' is not installed; `pip install -r requirements.txt` gets it."
        )
    return None if sentence is None else UserError(sentence)


def _of_system(error: OSError) -> str:
    if error.filename is None:
        return f"A file or the system refuses: {first_line(error)}"
    name = error.filename
    text = os.fsdecode(name) if isinstance(name, str | bytes) else name
    reason = error.strerror or first_line(error)
    return f"'{shown(text, 200)}' cannot be used: {reason}; check the path, or choose another"


def fault(error: BaseException) -> str:
    """Return the sentence for a fault of the program; the traceback is written to a file."""
    return (
        f"This is a fault of the program, not of what you typed: {described(error)}{_kept(error)}; "
        "please report it with that file, see 'Reporting a fault' in CONTRIBUTING.md."
    )


def described(error: BaseException) -> str:
    """Return type, message and place of an error."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    message = " ".join(str(error).split())
    place = f" ({Path(ours[-1].filename).name}:{ours[-1].lineno})" if ours else ""
    return f"{type(error).__name__}: {shown(message, 600)}{place}"


def plugin_line(error: BaseException) -> str | None:
    """Return file and line of the innermost frame in a plugin, or None where none took part."""
    found = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        if str(frame.f_globals.get("__name__", "")).startswith(PLUGIN):
            found = f"'{frame.f_code.co_filename}', line {line},"
    return found


def _kept(error: BaseException) -> str:
    """Write the traceback to a file of its own; return the words that name it, or none."""
    text = "".join(traceback.format_exception(error))
    lines = "\n".join(shown(line) for line in text.split("\n"))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="hashing-fault-", suffix=".txt", delete=False, encoding="utf-8"
        ) as stream:
            stream.write(lines)
    except OSError:
        return ""
    return f"; the traceback is in '{stream.name}'"


def _is_ours(name: str) -> bool:
    top = name.split(".")[0]
    return (ROOT / top).is_dir() or (ROOT / f"{top}.py").is_file()
