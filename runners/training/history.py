"""``history.jsonl`` of a run folder: one JSON object per finished epoch, in order.

It is written before the checkpoint of its epoch. A run that goes on from a checkpoint first drops
the records of later epochs, so that every epoch stands in it once.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from utils.fence import fenced
from utils.files import saying_why, write_text

FILE = "history.jsonl"


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What an epoch was measured to be.

    Attributes:
        on: the rows that epochs are selected by, ``val`` or ``query``.
        score: mean of ``map``.
        map: direction → value of ``by``.
        by: what epochs are compared by, ``mAP@all`` or a measure such as ``kalenforn@all``.
        cuts: where cuts have epochs of their own, cut or measure → mean over directions.
    """

    on: str
    score: float
    map: Mapping[str, float]
    by: str = "mAP@all"
    cuts: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class EpochRecord:
    """One epoch.

    Attributes:
        epoch: counted from 1.
        loss: mean over batches of every term, and of their ``total``.
        lr: parameter group → learning rate of the last step.
        seconds: of training, without measuring.
        measured: None where the epoch was not measured.
    """

    epoch: int
    loss: Mapping[str, float]
    lr: Mapping[str, float]
    seconds: float
    measured: Measurement | None = None


def append_record(folder: Path, record: EpochRecord) -> None:
    """Add an epoch to the history of a run."""
    file = folder / FILE
    with saying_why(file), fenced(file), open(file, "a", encoding="utf-8") as stream:
        stream.write(_line(record))


def read_history(folder: Path) -> list[EpochRecord]:
    """Return the records of a run up to the first damaged line; none where there is no history."""
    try:
        lines = (folder / FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    records = []
    for line in lines:
        try:
            values = json.loads(line)
            measured = values["measured"] and Measurement(**values["measured"])
            records.append(EpochRecord(**{**values, "measured": measured}))
        except (ValueError, TypeError, KeyError):  # the last line of a killed process
            break
    return records


def write_history(folder: Path, records: Iterable[EpochRecord]) -> None:
    """Write the whole history of a run, atomically."""
    write_text(folder / FILE, "".join(map(_line, records)))


def drop_records_after(folder: Path, epoch: int) -> None:
    """Remove the records of epochs after ``epoch``, and a line that was half written."""
    if (folder / FILE).exists():
        write_history(folder, (r for r in read_history(folder) if r.epoch <= epoch))


def _line(record: EpochRecord) -> str:
    return json.dumps(dataclasses.asdict(record)) + "\n"
