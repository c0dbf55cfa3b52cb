"""Links below a folder of pictures: each file once, under the class whose folder holds it."""

import os

import pytest

from dataset.folder import FolderConfig, build
from dataset.picture_walk import walk_files
from runners.search.collection import image_files


@pytest.fixture
def root(tmp_path):
    for name in ("ant", "bee", "cow"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for i in range(10):
            (tmp_path / "mine" / name / f"{i}.png").write_bytes(b"x")
    return tmp_path / "mine"


@pytest.mark.parametrize("target", ["..", "../..", "../bee", ".", "/"])
def test_links_upwards_and_aside_are_left_out_and_told(root, target, caplog):
    (root / "ant" / "more").symlink_to(target)
    dataset = build(FolderConfig(root=str(root)), "mine")
    assert len(dataset) == 30 and dataset.class_names == ("ant", "bee", "cow")
    assert image_files(root) == sorted(dataset.images.names)
    assert "1 links to folders are not followed" in caplog.text and "ant/more" in caplog.text


def test_links_to_files_and_to_folders_elsewhere_are_followed(root, tmp_path):
    other = tmp_path / "disk" / "dog"
    other.mkdir(parents=True)
    (other / "0.png").write_bytes(b"x")
    (other / "back").symlink_to(root)
    (root / "dog").symlink_to(other)
    (root / "ant" / "twice").symlink_to(other)  # below another class: where it comes first
    (root / "ant" / "a.png").symlink_to("../bee/1.png")
    files = walk_files(root)
    assert len(files) == 32 and "ant/a.png" in files
    assert sum(os.path.basename(os.path.dirname(file)) in ("dog", "twice") for file in files) == 1
