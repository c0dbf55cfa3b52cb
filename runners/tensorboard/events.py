"""Removes values from TensorBoard's event files that are about to be written again.

A run that was killed goes on from its last checkpoint, and may have written epochs after it. A new
file does not replace an older one's value of the same step, and TensorBoard's own mark for that
(``purge_step``) hides the steps of *all* curves of a folder, those of stages as well. So the values
are removed from the files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from utils.files import atomic_path

FILES = "events.out.tfevents.*"


def drop_events(folder: Path, unwanted: Callable[[str, int], bool]) -> None:
    """Remove values for which ``unwanted(tag, step)`` from the event files directly in ``folder``.

    A file is replaced as a whole. What follows a torn record, the last one of a killed process, is
    lost. A file without unwanted values is not changed, and neither is one that cannot be read.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    for file in sorted(folder.glob(FILES)):
        records, changed = [], False
        for record in _records(file):
            event = Event.FromString(record)
            values = [v for v in event.summary.value if not unwanted(v.tag, event.step)]
            if len(values) == len(event.summary.value):
                records.append(record)
                continue
            changed = True
            if values:
                del event.summary.value[:]
                event.summary.value.extend(values)
                records.append(event.SerializeToString())
        if changed:
            with atomic_path(file) as temporary, open(temporary, "wb") as stream:
                writer = RecordWriter(stream)
                for record in records:
                    writer.write(record)


def _records(file: Path) -> Iterator[Any]:
    """Yield the serialised events of a file, up to the first one that is damaged."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader

    with contextlib.suppress(Exception):  # the reader raises errors of any type on a torn file
        yield from RawEventFileLoader(str(file)).Load()
