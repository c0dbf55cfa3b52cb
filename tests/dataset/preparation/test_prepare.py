"""Preparing: where files come from, what is refused, and going on after being killed."""

import itertools
import json
import multiprocessing
import os
import shutil
import signal
import zipfile

import numpy as np
import pytest
import scipy.io

from dataset.preparation import prepare as module
from dataset.preparation import scan as scanning
from dataset.preparation.index import index_file, load_index
from dataset.preparation.prepare import prepare, splits_file
from tests.dataset.preparation.toy import N, Toy, write_toy
from tests.dataset.sources.layouts import WRITERS, pack
from tests.utils.test_downloads import server  # noqa: F401 - a fixture
from utils import archives
from utils.errors import UserError


@pytest.fixture
def packed(tmp_path):
    """The toy's layout with its pictures in pictures.zip."""
    root = write_toy(tmp_path / "toy")
    pack(root / "pictures.zip", root / "pictures", base=root)
    shutil.rmtree(root / "pictures")
    return root


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The index of a preparation that nothing disturbed."""
    root = write_toy(tmp_path_factory.mktemp("undisturbed"))
    prepare(Toy(), root)
    return index_file(root, "toy").read_bytes()


def test_archives_give_the_same_index_as_folders(packed, expected):
    prepare(Toy(), packed)
    assert index_file(packed, "toy").read_bytes() == expected
    splits = json.loads(splits_file(packed, "toy").read_text())
    assert splits["per_class"]["counts"] == {"train": 8, "val": 0, "query": 4, "database": 20}
    assert len(splits["per_class"]["hash"]) == 16 and splits["per_class"]["seed"] == 1
    assert "needs the published list" in splits["lists"]["missing"]
    assert [path.name for path in (packed / ".prepare").iterdir()] == ["toy.lock"]


def _killed_at(step, root):
    """Prepare in small steps, and be killed before the given one of unpacking or scanning."""
    scanning.ROWS_PER_CHUNK = 3
    steps = itertools.count()

    def counted(work):
        def do(*arguments):
            if next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return work(*arguments)

        return do

    scanning.image_digest = counted(scanning.image_digest)
    archives._write = counted(archives._write)
    prepare(Toy(), root)


def test_killed_at_any_moment_it_ends_with_the_same_index(packed, expected):
    context = multiprocessing.get_context("fork")
    for step in (0, 1, 17, 2, 9, 5):  # of what is left each time
        process = context.Process(target=_killed_at, args=(step, packed))
        process.start()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        if index_file(packed, "toy").exists():  # a name means that it is complete
            assert index_file(packed, "toy").read_bytes() == expected
    prepare(Toy(), packed)
    assert index_file(packed, "toy").read_bytes() == expected
    assert [path.name for path in (packed / ".prepare").iterdir()] == ["toy.lock"]


def test_a_scan_goes_on_and_sees_what_changed_meanwhile(packed, monkeypatch):
    monkeypatch.setattr(scanning, "ROWS_PER_CHUNK", 4)
    digest, read = scanning.image_digest, []

    def interrupted(images, row):
        read.append(row)
        if row == 14:
            raise KeyboardInterrupt
        return digest(images, row)

    monkeypatch.setattr(scanning, "image_digest", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(Toy(), packed)
    shutil.copy(packed / "pictures" / "9.jpg", packed / "pictures" / "2.jpg")
    read.clear()
    monkeypatch.setattr(
        scanning, "image_digest", lambda images, row: (read.append(row), digest(images, row))[1]
    )
    index = prepare(Toy(), packed)
    assert sorted(read) == [2, *range(12, 24)]
    np.testing.assert_array_equal(index.image_digests[2], index.image_digests[9])


def test_a_picture_that_is_not_there_is_no_obstacle(packed, caplog):
    prepare(Toy(), packed)
    (packed / "pictures" / "7.jpg").unlink()
    index = prepare(Toy(), packed)
    assert index.image_bytes[7] == -1 and not index.image_digests[7].any()
    assert load_index(packed, "toy").content == index.content


def test_missing_files_are_named_with_their_places(tmp_path):
    with pytest.raises(UserError) as error:
        prepare(Toy(), tmp_path)
    text = str(error.value)
    assert f"'{tmp_path}/pictures.zip' (or pictures unpacked in '{tmp_path}')" in text
    assert f"'{tmp_path}/meta/rows.txt' from https://example.org" in text
    assert "more.zip" not in text and text.endswith("or give --download.")


def test_too_little_room(packed, monkeypatch):
    usage = shutil.disk_usage(packed)._replace(free=module.MARGIN + 5000)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match="needs about .* GB more .* 0.1 GB are free"):
        prepare(Toy(), packed)
    assert not (packed / "pictures").exists()
    shutil.unpack_archive(packed / "pictures.zip", packed)
    prepare(Toy(), packed)  # nothing of size to write any more


def test_an_archive_without_what_it_should_hold(packed):
    with zipfile.ZipFile(packed / "pictures.zip", "w") as archive:
        archive.writestr("readme.txt", "moved")
    with pytest.raises(UserError, match="does not hold 'pictures'"):
        prepare(Toy(), packed)


def _offered(monkeypatch, url, **keys):
    """Let pictures.zip be offered at ``url``."""
    import dataclasses

    files = (dataclasses.replace(Toy.files[0], url=url, **keys), *Toy.files[1:])
    monkeypatch.setattr(Toy, "files", files)
    monkeypatch.setattr(
        module, "download", lambda *a, **k: original(*a, **k, timeout_s=0.2, pause_s=0, attempts=3)
    )


original = module.download


@pytest.mark.parametrize("fault", ["truncate", "stall", 503, "no_ranges"])
def test_downloads_over_a_bad_line(packed, expected, server, monkeypatch, fault):  # noqa: F811
    server.content = (packed / "pictures.zip").read_bytes()
    (packed / "pictures.zip").unlink()
    server.faults = ["truncate", fault]
    _offered(monkeypatch, server.url, size=len(server.content))
    prepare(Toy(), packed, fetch=True)
    assert index_file(packed, "toy").read_bytes() == expected


def test_a_dead_link_says_where_else_to_put_the_file(packed, server, monkeypatch):  # noqa: F811
    (packed / "pictures.zip").unlink()
    server.faults = [404]
    _offered(monkeypatch, server.url, page="https://example.org/toy")
    with pytest.raises(UserError, match="answers 404") as error:
        prepare(Toy(), packed, fetch=True)
    assert f"from https://example.org/toy and put it at '{packed}/pictures.zip'" in str(error.value)


def test_what_nobody_offers_is_asked_for_after_the_download(packed, server, monkeypatch):  # noqa: F811
    server.content = (packed / "pictures.zip").read_bytes()
    (packed / "pictures.zip").unlink()
    shutil.rmtree(packed / "meta")
    _offered(monkeypatch, server.url)
    with pytest.raises(UserError, match="put there: .*/meta/rows.txt") as error:
        prepare(Toy(), packed, fetch=True)
    assert (packed / "pictures.zip").exists() and "--download" not in str(error.value)


def test_the_mat_layout(tmp_path):
    WRITERS["flickr25k"](tmp_path / "official")
    rows = module.check_rows(_flickr().read(tmp_path / "official"), "flickr25k")
    labelled = np.flatnonzero(rows.labels[:, :24].any(1))
    mat = tmp_path / "mat"
    shutil.copytree(tmp_path / "official" / "mirflickr", mat / "mirflickr")
    texts = [" ".join(rows.texts[row]) or " " for row in labelled]
    scipy.io.savemat(mat / "index.mat", {"index": np.array([rows.paths[row] for row in labelled])})
    scipy.io.savemat(mat / "caption.mat", {"caption": np.array(texts)})
    scipy.io.savemat(mat / "label.mat", {"category": rows.labels[labelled, :24].astype(float)})
    index = prepare(_flickr(), mat)
    assert index.layout == "mat" and len(index.rows) == len(labelled) == 59
    assert index.rows.keys[0] == "im2" and index.rows.texts[0] == rows.texts[labelled[0]]
    splits = json.loads(splits_file(mat, "flickr25k").read_text())
    assert "5000 and dataset.split.train=10000" in splits["dcmht"]["missing"]
    assert prepare(_flickr(), mat).content == index.content
    assert N == 24


def _flickr():
    from dataset.sources.flickr25k import Flickr25k

    return Flickr25k()


def test_pictures_in_one_array_are_for_dataset_mat(tmp_path):
    for name in ("index.mat", "label.mat", "caption.mat"):
        scipy.io.savemat(tmp_path / name, {"index": np.array(["no.jpg"])})
    with pytest.raises(UserError):
        prepare(Toy(), tmp_path)
