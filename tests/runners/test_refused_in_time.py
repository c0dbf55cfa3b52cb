"""What settings and dataset alone can tell is refused before pictures are read or encoded."""

import pytest
from PIL import Image

from common.config.run_config import compose
from dataset.images import FileImages
from runners.experiment import Experiment
from tests.helpers import QUICK, write_class_folders
from utils.errors import UserError


@pytest.fixture
def words(tmp_path, monkeypatch):
    """Words for a folder of pictures, none of which may be opened."""
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "cache"))
    write_class_folders(tmp_path / "pictures")

    def refuse(*_):
        raise AssertionError("too late")

    monkeypatch.setattr(FileImages, "decode", refuse)
    monkeypatch.setattr(Image, "open", refuse)
    monkeypatch.setattr(FileImages, "fingerprint", property(refuse))
    return [
        "dataset=folder", f"dataset.root={tmp_path / 'pictures'}", "dataset.split.query=2",
        "backbone=pixels", "backbone.size=8", "bits=16", *QUICK,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("more", "remedy"),
    [
        (["method=pixel"], "dataset.class_attributes"),
        (["method=csq", "eval.val_size=0"], "eval.val_size"),
        (["method=csq", "loss.name=pixel"], "does not fit model"),
    ],
)
def test_a_task_that_lacks_something(words, more, remedy):
    with pytest.raises(UserError, match=remedy):
        Experiment.build(compose([*words, *more]))
    with pytest.raises(AssertionError, match="too late"):  # the next step is to read the pictures
        Experiment.build(compose([*words, "method=csq"]))
