"""Links below a folder of pictures: each file once, under the class whose folder holds it."""

import os
import zipfile

import pytest
from PIL import Image

from dataset.folder import FolderConfig, build
from dataset.picture_walk import is_picture, walk_files
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


OTHER_ENDINGS = {
    "a.jfif": "JPEG",
    "b.jpe": "JPEG",
    "c.avif": "AVIF",
    "d.jp2": "JPEG2000",
    "e": "PNG",
}


@pytest.fixture
def odd(tmp_path):
    """A class of pictures of other endings, one of no pictures, and a note beside pictures."""
    root = tmp_path / "odd"
    for name in ("ant", "dog", "eel"):
        (root / name).mkdir(parents=True)
    for name, kind in OTHER_ENDINGS.items():
        Image.new("RGB", (16, 16)).save(root / "dog" / name, kind)
    for i in range(5):
        Image.new("RGB", (4, 4)).save(root / "ant" / f"{i}.png")
    (root / "ant" / "notes.txt").write_text("no picture")
    (root / "ant" / ".hidden.txt").write_text("no picture")
    (root / "eel" / "1.heic").write_bytes(b"\0\0\0 ftypheic")
    (root / "eel" / "2.ps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    os.mkfifo(root / "eel" / "pipe")
    return root


def test_pictures_of_other_endings_are_read_by_content(odd, caplog):
    dataset = build(FolderConfig(root=str(odd)), "mine")
    assert dataset.class_names == ("ant", "dog")
    assert sorted(os.path.basename(name) for name in dataset.images.names[5:]) == sorted(
        OTHER_ENDINGS
    )
    assert all(dataset.images.decode(row).any(2).sum() == 0 for row in (0, 5))
    assert "4 files that cannot be read as a picture are left out" in caplog.text
    assert "1 .heic" in caplog.text and "1 .txt" in caplog.text and "ant/notes.txt" in caplog.text
    assert "1 folders have files but no picture, so they are no classes: eel" in caplog.text
    assert is_picture(odd / "dog" / "e") and not is_picture(odd / "ant" / "notes.txt")
    caplog.clear()
    assert image_files(odd) == sorted(dataset.images.names)
    assert "4 files" in caplog.text


def test_the_same_in_an_archive(odd, caplog):
    with zipfile.ZipFile(odd / "all.zip", "w") as archive:
        for path in odd.rglob("*/*"):
            if path.is_file():
                archive.write(path, "wrapped/" + path.relative_to(odd).as_posix())
    dataset = build(FolderConfig(root=str(odd), archive="all.zip"), "mine")
    assert len(dataset) == 10 and dataset.class_names == ("ant", "dog")
    assert "3 files" in caplog.text and "no classes: eel" in caplog.text
