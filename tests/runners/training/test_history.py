"""The history of a run: written line by line, cut back to a checkpoint, read with a torn line."""

from __future__ import annotations

import json

import pytest

from runners.training.history import (
    FILE,
    EpochRecord,
    Measurement,
    append_record,
    drop_records_after,
    read_history,
    write_history,
)
from utils.errors import UserError

RECORDS = [
    EpochRecord(1, {"total": 0.75, "pull": 0.5, "push": 0.25}, {"head": 1e-3}, 2.5),
    EpochRecord(2, {"total": 0.1}, {"head": 1e-4}, 2.0, Measurement("val", 0.3, {"i2t": 0.3})),
    EpochRecord(3, {"total": 1 / 3}, {"head": 1e-5}, 2.0, Measurement("val", 0.7, {"i2t": 0.7})),
]


@pytest.fixture
def folder(tmp_path):
    for record in RECORDS:
        append_record(tmp_path, record)
    return tmp_path


def test_a_line_is_an_epoch(folder):
    lines = [json.loads(line) for line in (folder / FILE).read_text().splitlines()]
    assert lines[0] == {
        "epoch": 1, "loss": {"total": 0.75, "pull": 0.5, "push": 0.25}, "lr": {"head": 1e-3},
        "seconds": 2.5, "measured": None,
    }  # fmt: skip
    assert lines[1]["measured"] == {
        "on": "val", "score": 0.3, "map": {"i2t": 0.3}, "by": "mAP@all", "cuts": {},
    }  # fmt: skip
    assert read_history(folder) == RECORDS
    content = (folder / FILE).read_bytes()
    write_history(folder, RECORDS)
    assert (folder / FILE).read_bytes() == content


@pytest.mark.parametrize("torn", [b"", b"{", b'{"epoch": 4}\n', b"\xff\xfe", b"4\n", b'"measured"'])
@pytest.mark.parametrize("epoch", [0, 2, 3, 9])
def test_what_comes_after_a_checkpoint_is_dropped(epoch, torn, folder):
    with open(folder / FILE, "ab") as stream:
        stream.write(torn)
    assert read_history(folder) == RECORDS
    drop_records_after(folder, epoch)
    assert read_history(folder) == RECORDS[:epoch]
    append_record(folder, RECORDS[2])
    assert read_history(folder) == [*RECORDS[:epoch], RECORDS[2]]


def test_no_history(tmp_path):
    drop_records_after(tmp_path, 3)
    assert read_history(tmp_path) == [] and not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="no folder can be made there"):
        append_record(tmp_path / "gone", RECORDS[0])
    (tmp_path / FILE).mkdir()
    with pytest.raises(UserError, match="Cannot write .*a folder of that name is in the way"):
        append_record(tmp_path, RECORDS[0])
