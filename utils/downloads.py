"""Downloads that resume after a lost connection or a restart, and never leave half a file.

Bytes go to ``NAME.part``, the server's total size and validator to ``NAME.part.json``. The next
attempt, in this process or another, requests the rest. The file gets its name when it is complete
and its checksum is right.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import re
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.files import saying_why, write_json
from utils.progress import progress_bar

log = logging.getLogger("hashing")

_MIB = 1 << 20
_FINAL = {401, 403, 404, 410, 451}  # another attempt would not help
_LOST = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError)


class _StartOverError(Exception):
    """The ``.part`` file is not the beginning of the server's present file."""


def download(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    checksum: str | None = None,
    timeout_s: float = 30,
    attempts: int = 5,
    pause_s: float = 1,
) -> None:
    """Download ``url`` to ``target``, from where an earlier attempt stopped.

    Args:
        url: http or https.
        target: path of the file.
        size: expected bytes, if known.
        checksum: see :func:`check_checksum`.
        timeout_s: seconds without a byte after which the connection is closed.
        attempts: number of attempts in a row without a byte after which the download fails.
        pause_s: seconds before the second attempt; doubles with each further one.

    Raises:
        UserError: the server refuses or cannot be reached, the file has another size or checksum,
            or the disk is full.
    """
    part = target.with_name(f"{target.name}.part")
    failures = 0
    with saying_why(part):
        target.parent.mkdir(parents=True, exist_ok=True)
        while True:
            before = _size(part)
            try:
                _fetch(url, part, size, timeout_s)
                break
            except _StartOverError:
                part.unlink(missing_ok=True)
                reason: object = "the server offers something else now"
            except urllib.error.HTTPError as error:
                reason = f"the server answers {error.code} {error.reason}"
                if error.code in _FINAL:
                    raise UserError(f"'{url}' cannot be fetched: {reason}.") from error
            except _LOST as error:
                reason = getattr(error, "reason", None) or error or type(error).__name__
            failures = 0 if _size(part) > before else failures + 1
            if failures >= attempts:
                raise UserError(
                    f"'{url}' cannot be fetched ({reason}); {_size(part):,} bytes are kept in "
                    f"'{part}', and the same command goes on from there."
                )
            log.info("%s: %s; trying again from byte %s", url, reason, f"{_size(part):,}")
            time.sleep(pause_s * 2**failures if failures else 0)
        if checksum is not None and not check_checksum(part, checksum):
            part.unlink()
            _note(part).unlink(missing_ok=True)
            raise UserError(
                f"What '{url}' gave does not have the published checksum {checksum}; it was thrown "
                "away. Try again, or fetch the file elsewhere."
            )
        part.replace(target)
        _note(part).unlink(missing_ok=True)


def check_checksum(file: Path, checksum: str) -> bool:
    """Return whether a file has the checksum ``sha256:…``, ``sha1:…`` or ``md5:…``."""
    kind, _, expected = checksum.partition(":")
    with open(file, "rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.new(kind, usedforsecurity=False))
    return digest.hexdigest() == expected.lower()


def _fetch(url: str, part: Path, size: int | None, timeout_s: float) -> None:
    """Append to ``part`` until it is complete, or raise the error that stopped it."""
    note = _read_note(part, url)
    start = _size(part) if note else 0
    headers = {"User-Agent": "deep-hashing-benchmark", "Accept-Encoding": "identity"}
    if start:
        if start == note.get("total"):
            return
        headers["Range"] = f"bytes={start}-"
        if note.get("validator"):
            headers["If-Range"] = note["validator"]
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:
            raise _StartOverError from error
        raise
    with response:
        start, total = _range_and_total(response, start, note.get("total"))
        if size is not None and total is not None and total != size:
            raise UserError(
                f"'{url}' offers {total:,} bytes, but the published file has {size:,}; what stands "
                "there now is something else."
            )
        if not start:  # the note must not describe the bytes of another file
            part.unlink(missing_ok=True)
        write_json(_note(part), {"url": url, "validator": _validator(response), "total": total})
        title = f"fetching {part.name.removesuffix('.part')} (MiB)"
        bar = progress_bar(title, max(1, (total or 0) // _MIB))
        with open(part, "r+b" if start else "wb") as stream, bar as advance:
            advance(start / _MIB)
            stream.seek(start)
            while block := response.read1(_MIB):
                stream.write(block)
                advance(len(block) / _MIB)
    missing = (total if total is not None else size or 0) - _size(part)
    if missing > 0:
        raise http.client.IncompleteRead(b"", missing)


def _range_and_total(response: Any, start: int, known: int | None) -> tuple[int, int | None]:
    """Return the first byte of the response and the size of the whole file, if it is stated."""
    length = response.headers.get("Content-Length")
    if response.status != 206:
        return 0, int(length) if length is not None and length.isdigit() else None
    content_range = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", content_range)
    if match is None or int(match[1]) != start:
        raise _StartOverError
    total = int(match[3]) if match[3] != "*" else known
    if known is not None and total != known:
        raise _StartOverError
    return start, total


def _validator(response: Any) -> str | None:
    """Return the value for If-Range: a strong entity tag, else the time of the last change."""
    tag = response.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_note(part: Path, url: str) -> dict[str, Any]:
    """Return the note on the bytes in ``part``, or ``{}`` if they are from another URL."""
    try:
        note = json.loads(_note(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) and note.get("url") == url else {}


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
