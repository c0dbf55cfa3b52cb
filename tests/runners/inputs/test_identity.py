"""What counts as the content of a run's inputs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dataset.base import ArrayImages, AuxiliaryInputs, GeneratedRows, HashDataset
from dataset.splits import SplitManifest
from dataset.stacked import StackedImages
from models.backbones.base import CachedBackbone
from models.base import InputRequest
from runners.inputs.identity import identity_of

N = 6
REQUEST = InputRequest(("image", "text"), auxiliary=("second",), generated_rows=True)
ENCODER = CachedBackbone({"image": 3}, {"image": 3}, "e" * 16)


def images(mark: str = "pixels", rows: int = N) -> ArrayImages:
    return ArrayImages(np.zeros((rows, 2, 2, 3), np.uint8), mark)


@pytest.fixture
def dataset() -> HashDataset:
    rows = np.arange(N)
    return HashDataset(
        name="toy", images=images(), labels=np.eye(N, 2, dtype=np.float32),
        class_names=("ant", "bee"), multi_label=False,
        split=SplitManifest(rows[:3], rows[:0], rows[3:], rows[:3], rule="toy"),
        texts=[("a", "b")] * N, attributes=np.ones((2, 4), np.float32),
        extras={"gaze": np.arange(N)},
    )  # fmt: skip


def second(text: str = "t", **more) -> AuxiliaryInputs:
    return AuxiliaryInputs(np.arange(N), "source", [text] * N, **more)


def grown(dataset: HashDataset, mark: str = "painted", label: float = 1.0) -> HashDataset:
    """Return the dataset with a generated row and second captions."""
    return dataclasses.replace(
        dataset,
        images=StackedImages([dataset.images, images(mark, 1)]),
        labels=np.concatenate([dataset.labels, np.full((1, 2), label, np.float32)]),
        texts=[*(dataset.texts or ()), ("prompt",)],
        generated=GeneratedRows("tgi", np.array([N]), "source"),
        auxiliary={"second": second()},
    )


CHANGES = {
    "picture": lambda d: {"images": images("other")},
    "label": lambda d: {"labels": 1 - d.labels},
    "text": lambda d: {"texts": [*d.texts[:-1], ("a", "c")]},
    "bounds of texts": lambda d: {"texts": [*d.texts[:-1], ("ab",)]},
    "no texts": lambda d: {"texts": None},
    "name": lambda d: {"class_names": ("ant", "cow")},
    "split": lambda d: {"split": dataclasses.replace(d.split, query=np.array([4, 5]))},
    "attribute": lambda d: {"attributes": 2 * d.attributes},
    "extra": lambda d: {"extras": {"gaze": np.arange(N)[::-1]}},
    "seen": lambda d: {"seen_classes": (0,)},
}


@pytest.mark.parametrize("what", CHANGES)
def test_each_part_of_the_data_counts(what, dataset):
    before = identity_of(dataset, grown(dataset), REQUEST, ENCODER, {})
    other = dataclasses.replace(dataset, **CHANGES[what](dataset))
    changed = identity_of(other, other, InputRequest(("image",)), ENCODER, {})
    assert changed.data != before.data and changed.encoder == "e" * 16
    same = dataclasses.replace(dataset, name="under another name")
    assert identity_of(same, grown(same), REQUEST, ENCODER, {}) == before


@pytest.mark.parametrize(
    ("changed", "request_", "differs"),
    [
        (lambda d: grown(d), REQUEST, False),
        (lambda d: grown(d, mark="repainted"), REQUEST, True),
        (lambda d: grown(d, label=0.0), REQUEST, True),
        (lambda d: dataclasses.replace(grown(d), auxiliary={"second": second("u")}), REQUEST, True),
        (
            lambda d: dataclasses.replace(
                grown(d), auxiliary={"second": second(features=np.ones((N, 2)))}
            ),
            REQUEST,
            True,
        ),
        (
            lambda d: dataclasses.replace(grown(d), auxiliary={"second": second(), "x": second()}),
            REQUEST,
            False,  # the model does not read it
        ),
        (lambda d: grown(d, mark="repainted"), InputRequest(("image",)), None),
    ],
)
def test_generated_inputs_count_where_the_model_reads_them(changed, request_, differs, dataset):
    before = identity_of(dataset, grown(dataset), REQUEST, ENCODER, {})
    after = identity_of(dataset, changed(dataset), request_, ENCODER, {})
    assert after.data == before.data
    if differs is None:
        assert after.generated == ""
    else:
        assert (after.generated != before.generated) == differs


def test_files_that_settings_name_count(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "cache"))
    (tmp_path / "centres").mkdir()
    (tmp_path / "centres" / "16.pt").write_bytes(b"1")
    (tmp_path / "vocab.txt").write_bytes(b"1")

    def files(**model) -> str:
        settings = {"model": {"name": "pixel", "text": model}, "loss": None}
        return identity_of(dataset, dataset, REQUEST, ENCODER, settings).files

    assert files(weights="random", tag="someone/bert", rate=0.1) == ""
    both = {"files": f"{tmp_path}/centres", "vocabulary": str(tmp_path / "vocab.txt")}
    before = files(**both)
    assert before == files(**both, rate=0.1) != ""
    for file in ("centres/16.pt", "vocab.txt"):
        (tmp_path / file).write_bytes(b"2")
        assert files(**both) != before
        (tmp_path / file).write_bytes(b"1")
        assert files(**both) == before
