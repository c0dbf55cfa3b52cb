"""Long work by blocks of rows: what a killed process had finished is not done again.

An entry in the making lies in the folder ``<entry>.blocks`` beside its place. Its files have their
full size from the beginning; rows are written in order, and whenever a block of them is on the
disk, a line is added to ``journal.jsonl``: the rows that are done, the CRC-32 of what the block
wrote, and a note of the writer's. Whoever comes next, under the lock of the entry, believes the
blocks in front whose bytes have their checksum, and goes on behind them. A folder in which nothing
was finished is removed at once, one that nobody came back to after a week
(:mod:`utils.temporary`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.storage.checksums import move_sealed
from utils.files import saying_why, sync
from utils.heartbeat import heartbeat
from utils.temporary import BLOCKS, held_folder

log = logging.getLogger("hashing")
_JOURNAL = "journal.jsonl"
_PIECE = 1 << 22


@dataclass(frozen=True)
class Block:
    """Rows that are on the disk.

    Attributes:
        end: rows that are done with it, counted from the first one of all.
        parts: name of a file below the entry (``.``: the entry itself), first byte, number of
            bytes, and their CRC-32 as 8 hex digits.
        note: JSON of the writer's.
    """

    end: int
    parts: list[list[Any]]
    note: Any = None


class Blocks:
    """An entry in the making, and the blocks of it that are finished.

    Attributes:
        path: where the entry is made, a file or a folder.
        finished: the blocks, in order.
    """

    def __init__(self, folder: Path, name: str) -> None:
        """Read what an earlier process finished in ``folder``; ``name`` is that of the entry."""
        self.path = folder / name
        self._journal = folder / _JOURNAL
        self.finished: list[Block] = list(self._whole())
        self.rewind(self.done)

    @property
    def done(self) -> int:
        """The number of rows in finished blocks."""
        return self.finished[-1].end if self.finished else 0

    def rewind(self, rows: int) -> None:
        """Forget the blocks behind the first ``rows``."""
        self.finished = [block for block in self.finished if block.end <= rows]
        lines = [json.dumps(vars(block)) + "\n" for block in self.finished]
        self._journal.write_text("".join(lines), encoding="utf-8")

    def commit(self, end: int, ranges: Iterable[tuple[str, int, int]], note: Any = None) -> None:
        """Record that rows up to ``end`` are written.

        Args:
            end: their number, counted from the first row of all.
            ranges: what the block wrote: name of a file, first byte, number of bytes.
            note: JSON that the writer needs to go on.
        """
        parts: list[list[Any]] = []
        for name, start, size in ranges:
            sync(self.path / name)
            parts.append([name, start, size, _checksum(self.path / name, start, size)])
        block = Block(end, parts, note)
        with open(self._journal, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(vars(block)) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        self.finished.append(block)

    def _whole(self) -> Iterator[Block]:
        """Yield the blocks in front that are as they were written."""
        done = 0
        try:
            lines = self._journal.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return
        for line in lines:
            try:
                block = Block(**json.loads(line))
                whole = block.end > done and all(
                    _checksum(self.path / name, start, size) == crc32
                    for name, start, size, crc32 in block.parts
                )
            except (OSError, ValueError, TypeError):  # a line cut short, a file that is gone
                return
            if not whole:
                return
            done = block.end
            yield block


@contextlib.contextmanager
def entry_by_blocks(target: Path) -> Iterator[Blocks]:
    """Yield the blocks of a new entry, which gets its name and its checksums at the end.

    Call it under the lock of the entry. If the body fails, what it had committed stays for the next
    call.
    """
    with saying_why(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with held_folder(target.with_name(target.name + BLOCKS)) as folder:
            blocks = Blocks(folder, target.name)
            try:
                yield blocks
                sync(blocks.path)
                move_sealed(blocks.path, target)
            except BaseException:
                if not blocks.finished:
                    shutil.rmtree(folder, ignore_errors=True)
                raise
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def saying_what_stays(what: str, blocks: Blocks, rows: int) -> Iterator[None]:
    """Log how many of all ``rows`` are finished when the body ends by an error or Ctrl-C."""
    try:
        yield
    except BaseException:
        if blocks.done:
            log.info(
                "%s: %s of %s rows are kept, not done again", what, f"{blocks.done:,}", f"{rows:,}"
            )
        raise


def _checksum(file: Path, start: int, size: int) -> str:
    """Return the CRC-32 of ``size`` bytes of a file, 8 hex digits; ValueError: it has fewer."""
    total = 0
    with open(file, "rb") as stream:
        stream.seek(start)
        while size:
            heartbeat()
            data = stream.read(min(size, _PIECE))
            if not data:
                raise ValueError(f"'{file}' ends early")
            total, size = zlib.crc32(data, total), size - len(data)
    return f"{total:08x}"
