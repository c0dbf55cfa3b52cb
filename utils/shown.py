"""What comes from outside, as text to be shown: visible, on one line, never a control of anything.

Captions, file and dataset names, settings and the messages of libraries may hold escape sequences,
line ends, marks that reverse the direction of writing, markup, or formulas. What prints, logs or
writes a table passes them through :func:`shown` (the terminal: :mod:`utils.terminal`, the log:
:mod:`utils.logs`) or :func:`csv_cell`.
"""

from __future__ import annotations

import re
import reprlib
import unicodedata
from typing import Any

LONGEST = 4000
"""Characters of one shown text; of a longer one the middle is left out."""

_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_JOINERS = "\u200c\u200d"  # zero width, yet part of words and of composed pictographs
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's control characters, format marks (bidi overrides among them), halves of pairs, ends of
lines and paragraphs."""

_FORMULA = "=+-@\uff1d\uff0b\uff0d\uff20"  # the last four in their wide forms


def shown(value: object, longest: int = LONGEST) -> str:
    r"""Return ``value`` as one line of text in which nothing is hidden and nothing acts.

    Bytes of file names that are not UTF-8 appear as such.

    >>> print(shown("red: \x1b[31m, two\nlines, \u202etxt.exe"))
    red: \x1b[31m, two\nlines, \u202etxt.exe
    >>> print(shown("caf\udce9.png"))
    caf\xe9.png
    """
    text = str(value)
    if len(text) > longest:
        half = longest // 2
        text = f"{text[:half]} … ({len(text) - 2 * half:,} characters) … {text[-half:]}"
    return text if text.isascii() and text.isprintable() else "".join(map(_visible, text))


def _visible(sign: str) -> str:
    if sign.isprintable() or sign in _JOINERS or unicodedata.category(sign) not in _HIDDEN:
        return sign
    number = ord(sign)
    if 0xDC80 <= number <= 0xDCFF:  # how Python holds a byte that is not UTF-8
        number -= 0xDC00
    if number < 0x100:
        return _NAMED.get(sign, f"\\x{number:02x}")
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


class _Brief(reprlib.Repr):
    """``repr`` of bounded length and work, however deep or often shared its argument is."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxtuple, self.maxdict = 3, 8, 8, 6
        self.maxstring = self.maxother = 120

    def repr_int(self, x: int, level: int) -> str:
        """Return digits, or for very large numbers how many bits they take."""
        return repr(x) if x.bit_length() <= 200 else f"a whole number of {x.bit_length():,} bits"


def brief(value: Any) -> str:
    """Return ``repr(value)`` cut to what fits in a sentence.

    >>> brief("relu"), brief(10**5000), brief(list(range(100)))
    ("'relu'", 'a whole number of 16,610 bits', '[0, 1, 2, 3, 4, 5, 6, 7, ...]')
    """
    return _Brief().repr(value)


def csv_cell(value: Any) -> Any:
    r"""Return a cell of a CSV file: numbers as they are, text that no spreadsheet computes.

    A text that begins with ``=``, ``+``, ``-`` or ``@`` gets an apostrophe before it, unless it is
    a number; ends of lines, tabs and control characters are shown as ``\n``, ``\t``, ``\x1b``.

    >>> csv_cell("=cmd|' /C calc'!A0"), csv_cell("-0.5"), csv_cell(-0.5), csv_cell("a-b")
    ("'=cmd|' /C calc'!A0", '-0.5', -0.5, 'a-b')
    """
    if not isinstance(value, str):
        return value
    text = shown(value)
    if text.lstrip()[:1] in tuple(_FORMULA) and not _is_number(text):
        return f"'{text}"
    return text


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?", text, re.ASCII) is not None


def file_word(text: str) -> str:
    """Return ``text`` as a part of a file's name, which stays in its folder.

    >>> file_word("../../etc/x y"), file_word("creatures_scenes")
    ('..-..-etc-x-y', 'creatures_scenes')
    """
    return re.sub(r"[^\w.+=()-]+", "-", text)[:80]


def first_line(error: BaseException) -> str:
    r"""Return what a library says of an error, without the lines of context below it.

    >>> first_line(ValueError("bad key\n    full_key: a\n    object_type=dict"))
    'bad key'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0].rstrip(".")
