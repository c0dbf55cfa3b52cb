"""What ``main.py generate`` made, read by row; other folders refused with a sentence."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from PIL import Image

from dataset.auxiliary.captions import with_generated
from dataset.base import ArrayImages, HashDataset
from dataset.splits import SplitConfig, make_split
from utils.errors import UserError

N = 8


@pytest.fixture
def dataset():
    labels = np.eye(N, dtype=np.float32)
    return HashDataset(
        name="toy", images=ArrayImages(np.zeros((N, 4, 4, 3), np.uint8), "zeros"), labels=labels,
        class_names=tuple(map(str, range(N))), multi_label=False,
        split=make_split(SplitConfig(query=3), labels), texts=[(f"text {i}",) for i in range(N)],
    )  # fmt: skip


def write_lines(path, texts):
    lines = [json.dumps({"row": row, "text": text}, ensure_ascii=False) for row, text in texts]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def paint(path, value):
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (4, 4), (value, 0, 0)).save(path)


def write_manifest(folder, **dataset):
    told = {
        "dataset": {"name": "toy", "rows": N, "images": "zeros", **dataset},
        "parts": {"captions": {"made_by": {"captioner": "blip"}, "done": N}},
    }
    (folder / "manifest.json").write_text(json.dumps(told))


@pytest.fixture
def folder(tmp_path, dataset):
    """Return a complete folder, its lines in no order."""
    write_lines(tmp_path / "captions.jsonl", [(r, f"seen\u2028{r}") for r in range(N)][::-1])
    queries = dataset.split.query.tolist()
    write_lines(tmp_path / "query_captions.jsonl", [(r, f"painted {r}") for r in queries])
    for row in queries:
        paint(tmp_path / "query_images" / f"{row}.png", row)
    write_manifest(tmp_path)
    return tmp_path


def test_both_are_found_by_row(dataset, folder):
    auxiliary = with_generated(dataset, folder).auxiliary
    assert dataset.auxiliary == {}  # what a sweep keeps in memory stays as it is
    second, virtual = auxiliary["second"], auxiliary["virtual"]
    assert second.rows.tolist() == list(range(N))
    assert second.texts == [f"seen\u2028{r}" for r in range(N)]
    assert second.parts == ("train", "database")
    assert '"captioner": "blip"' in second.source
    assert virtual.rows.tolist() == sorted(dataset.split.query)
    assert virtual.texts == [f"painted {r}" for r in virtual.rows]
    assert [int(virtual.images.decode(i)[0, 0, 0]) for i in range(3)] == virtual.rows.tolist()
    assert virtual.parts == ("query",)


def test_captions_alone_and_rows_left_out(dataset, tmp_path):
    write_lines(tmp_path / "captions.jsonl", [(5, "five"), (2, "two")])
    auxiliary = with_generated(dataset, tmp_path).auxiliary
    assert set(auxiliary) == {"second"}
    second = auxiliary["second"]
    assert second.rows.tolist() == [2, 5] and second.texts == ["two", "five"]


def test_a_painted_picture_without_caption_does_not_count(dataset, folder):
    queries = sorted(dataset.split.query.tolist())
    write_lines(folder / "query_captions.jsonl", [(r, "painted") for r in queries[:2]])
    assert with_generated(dataset, folder).auxiliary["virtual"].rows.tolist() == queries[:2]
    (folder / "query_captions.jsonl").unlink()
    with pytest.raises(UserError, match="holds 3 painted pictures .* no row has both"):
        with_generated(dataset, folder)


def test_the_released_layout(dataset, tmp_path):
    query = dataset.split.query
    for rank in range(len(query)):
        paint(tmp_path / f"{rank + 1}.png", rank)
    (tmp_path / "captions.txt").write_text("first\nsecond\nthird\n")
    virtual = with_generated(dataset, tmp_path).auxiliary["virtual"]
    for rank, row in enumerate(query):
        at = virtual.rows.tolist().index(row)
        assert virtual.texts[at] == ("first", "second", "third")[rank]
        assert virtual.images.decode(at)[0, 0, 0] == rank
    (tmp_path / "captions.txt").write_text("first\n")
    with pytest.raises(UserError, match="has 1 lines, but the split has 3 query rows"):
        with_generated(dataset, tmp_path)


def test_other_pictures_are_told(dataset, folder, caplog):
    write_manifest(folder, images="other")
    with caplog.at_level(logging.WARNING, logger="hashing"):
        with_generated(dataset, folder)
    assert "was made from pictures other, and 'toy' has pictures zeros" in caplog.text


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("captions.jsonl", '{"row": 0, "text": "a"}\n{"row": 1', "captions.jsonl:2: a line"),
        ("captions.jsonl", '{"row": 8, "text": "a"}', "row 8 is not one of the dataset's 0 to 7"),
        ("captions.jsonl", '{"row": 1, "text": 3}', "its text is none"),
        ("manifest.json", "{", "is not what `main.py generate` writes"),
        ("manifest.json", '{"dataset": {}}', "is not what `main.py generate` writes"),
    ],
)
def test_broken_files_are_named(dataset, folder, file, content, told):
    (folder / file).write_text(content)
    with pytest.raises(UserError, match=told):
        with_generated(dataset, folder)


def test_folders_of_something_else(dataset, folder, tmp_path):
    write_manifest(folder, rows=9)
    with pytest.raises(UserError, match="a dataset of 9 rows, but 'toy' has 8"):
        with_generated(dataset, folder)
    with pytest.raises(UserError, match="is not a folder; make it with `main.py generate`"):
        with_generated(dataset, tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds neither captions.jsonl nor query_images"):
        with_generated(dataset, tmp_path / "empty")
