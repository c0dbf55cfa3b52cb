"""Folders of the authors as they are: the documented commands, without any conversion."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import scipy.io
import torch

import main
from common.storage.run_folder import RunFolder
from tests.dataset.sources.layouts import WRITERS
from tests.dataset.sources.layouts_zero_shot import write_awa2
from tests.helpers import PIXELS, QUICK
from tests.runners.commands import author_layouts as layouts

TINY = ("runner.epochs=1", "runner.batch_size=8", "eval.select=last")
NUMBERS = ("dataset.split.query=4", "dataset.split.train=12")


@pytest.fixture
def command(tmp_path, monkeypatch, capfd):
    """Return a function that runs a command which must succeed; train's returns its metrics."""
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "cache"))

    def run(*words):
        extra = (f"output={tmp_path / 'runs'}", *QUICK, *TINY) if words[0] == "train" else ()
        code = main.main([str(word) for word in (*words, *extra)])
        out, err = capfd.readouterr()
        assert code == 0, err
        return RunFolder(out.strip().splitlines()[-1]).metrics() if words[0] == "train" else out

    return run


@pytest.mark.parametrize("form", ["cells", "column", "flat", "text"])
def test_dcmht(command, tmp_path, form):
    root, pictures = tmp_path / "dataset" / "flickr25k", tmp_path / "elsewhere"
    layouts.write_dcmht(root, pictures, form)
    metrics = command(
        "train", "method=dcmht", "dataset=mat", f"dataset.root={root}",
        f"dataset.image_root={pictures}", *NUMBERS, *PIXELS,
    )  # fmt: skip
    assert metrics["protocol"]["rows"] == {"train": 12, "val": 0, "query": 4, "database": 20}
    assert metrics["protocol"]["classes"] == layouts.CLASSES


def test_prepare_nuswide_with_lines_of_captions_and_pictures_elsewhere(command, tmp_path):
    root, pictures = tmp_path / "nuswide", tmp_path / "elsewhere"
    names = [f"Flickr/actor/{i:04d}_{2124494179 + i}.jpg" for i in range(24)]
    layouts.write_dcmht(root, pictures, "text", names, classes=21)
    told = command("prepare", "nuswide", "--root", root, "--images", pictures)
    assert "24 rows, 21 classes, mat layout" in told
    words = ("dataset=nuswide", f"dataset.root={root}", *NUMBERS)
    assert command("train", "method=dcmht", *words, *PIXELS)["protocol"]["rows"]["query"] == 4
    (pictures / names[3]).rename(pictures / "moved.jpg")
    command("train", "method=dcmht", *words, *PIXELS, "data.on_bad_image=skip")


def test_mith_and_vtph(command, tmp_path):
    root, pictures, painted = tmp_path / "mat", tmp_path / "elsewhere", tmp_path / "painted"
    layouts.write_dcmht(root, pictures)
    labels = scipy.io.loadmat(root / "label.mat")["category"].astype(np.float32)
    scipy.io.savemat(root / "label.mat", {"label": labels})  # MITH's name of it
    layouts.write_painted(painted, 4)
    words = (
        "dataset=mat", f"dataset.root={root}", f"dataset.image_root={pictures}", *NUMBERS,
        "dataset.split.seed=1", "backbone=clip_mini", "bits=16",
    )  # fmt: skip
    captions = [f"a picture of thing {i}" for i in range(layouts.ROWS)]
    scipy.io.savemat(root / "image_caption.mat", {"image_caption": np.array(captions)})
    assert command("train", "method=mith", *words)["protocol"]["classes"] == 3
    protocol = command("train", "method=vtph", *words, f"data.generated={painted}")["protocol"]
    assert protocol["text_codes"]["query"] == "painted picture and its caption"
    assert "image_caption.mat" in protocol["other_inputs"]["second"]


def test_vtph_with_a_prepared_dataset(command, tmp_path):
    root, given = tmp_path / "flickr25k", tmp_path / "vtph"
    WRITERS["flickr25k"](root)
    command("prepare", "flickr25k", "--root", root)
    layouts.write_painted(given, 4)
    names = [f"/home/author/mirflickr/im{i}.jpg" for i in range(70, 0, -1)]
    captions = [f"a picture of number {i}" for i in range(70, 0, -1)]
    scipy.io.savemat(given / "index.mat", {"index": np.array(names)})
    scipy.io.savemat(given / "image_caption.mat", {"image_caption": np.array(captions)})
    words = (
        "train", "method=vtph", "dataset=flickr25k", f"dataset.root={root}", *NUMBERS,
        "backbone=clip_mini", "bits=16",
    )  # fmt: skip
    other = command(*words, f"data.generated={given}")["protocol"]["other_inputs"]
    assert "image_caption.mat" in other["second"] and "virtual" in other
    prepared = root.with_name("with_captions")
    root.rename(prepared)
    shutil.copy(given / "index.mat", prepared)
    shutil.copy(given / "image_caption.mat", prepared)
    words = [word.replace(str(root), str(prepared)) for word in words]
    assert str(prepared) in command(*words)["protocol"]["other_inputs"]["second"]


def test_rows_of_mat_files_follow_published_lists(command, tmp_path):
    root = tmp_path / "coco"
    names = [f"{'train' if i < 16 else 'val'}2017/{7 * i:012d}.jpg" for i in range(24)]
    layouts.write_dcmht(root, root, "cells", names)
    scipy.io.savemat(root / "label.mat", {"category": np.eye(3, dtype=int)[np.arange(24) % 3]})
    command("prepare", "coco", "--root", root)
    parts = {"coco_train.txt": range(4, 16), "coco_test.txt": range(4)}
    layouts.write_lists(root, parts, "train2014/COCO_train2014_{:012d}.jpg", 3)
    for name in parts:  # photos are named by 7 times their row
        lines = [line.split("_", 2) for line in (root / name).read_text().splitlines()]
        text = "".join(f"{a}_{b}_{7 * int(c[:12]):012d}{c[12:]}\n" for a, b, c in lines)
        (root / name).write_text(text)
    metrics = command(
        "train", "method=csq", "dataset=coco", f"dataset.root={root}",
        "dataset.split.name=lists", *PIXELS,
    )  # fmt: skip
    assert metrics["protocol"]["rows"] == {"train": 12, "val": 0, "query": 4, "database": 20}


def test_pzsh_by_its_lists_alone(command, tmp_path):
    layouts.write_pzsh(tmp_path / "AWA", width=192)
    metrics = command(
        "train", "method=pzsh", "dataset=lists", f"dataset.root={tmp_path / 'AWA'}",
        "dataset.train=train_3_AWA.txt", *PIXELS,
    )  # fmt: skip
    protocol, measures = metrics["protocol"], metrics["zero_shot"]
    assert protocol["rows"] == {"train": 18, "val": 0, "query": 4, "database": 14}
    assert protocol["names_of_unseen_classes_used_in_training"] is True
    assert "6 pictures and features listed in" in protocol["synthetic_rows_of_unseen_classes"]
    assert "features listed in" in protocol["alignment"]
    assert measures["seen_classes"] == [0, 1, 2] and measures["rows"]["unseen_queries"] == 4


def test_pzsh_with_the_official_files(command, tmp_path):
    root = tmp_path / "AWA"
    write_awa2(root)
    command("prepare", "awa2", "--root", root)
    order = [f"animal+{(7 * c) % 50:02d}" for c in range(50)]
    lists: dict[str, list[str]] = {"train.txt": [], "test.txt": [], "database.txt": []}
    for label, name in enumerate(order):
        for i in range(5):
            path = f"JPEGImages/{name}/{name}_{10001 + i}.jpg"  # from a folder of the authors'
            asks, trains = label >= 40 and i == 0, label < 40 and i < 2
            part = "test.txt" if asks else "train.txt" if trains else "database.txt"
            lists[part].append(layouts.pzsh_line(path, label, 50, 192 if trains else None))
        if label >= 40:
            layouts.write_picture(root / f"txt2img/{name}/0.png", label)
            lists["train.txt"].append(layouts.pzsh_line(f"txt2img/{name}/0.png", label, 50, 192))
    for part, lines in lists.items():
        (root / part).write_text("".join(lines))
    metrics = command(
        "train", "method=pzsh", "dataset=awa2", f"dataset.root={root}",
        "dataset.split.name=lists", *PIXELS,
    )  # fmt: skip
    assert metrics["protocol"]["rows"]["train"] == 80 + 10
    assert "10 pictures and features" in metrics["protocol"]["synthetic_rows_of_unseen_classes"]
    assert metrics["zero_shot"]["rows"]["unseen_queries"] == 10


def test_pixel(command, tmp_path):
    root = tmp_path / "Animals_with_Attributes2"
    write_awa2(tmp_path)
    words = (
        "train", "method=pixel", "dataset=folder", f"dataset.root={root / 'JPEGImages'}",
        f"dataset.class_attributes={root}", f"dataset.unseen_classes=[{root / 'testclasses.txt'}]",
        "dataset.split.rule=seen_unseen", "dataset.split.query=1", "dataset.split.train=2",
        "dataset.split.train_in_database=false",
    )  # fmt: skip
    metrics = command(*words, *PIXELS, "model.adapter=0", "model.standardize=false")
    assert metrics["protocol"]["rows"] == {"train": 80, "val": 0, "query": 10, "database": 160}
    assert len(metrics["zero_shot"]["seen_classes"]) == 40


@pytest.mark.parametrize("method", ["csq", "shc"])
def test_deephash_and_shc(command, tmp_path, method):
    lists, pictures = tmp_path / "data" / "cars", tmp_path / "elsewhere"
    lists.mkdir(parents=True)
    for row in range(30):
        layouts.write_picture(pictures / f"car_ims/{row:06d}.jpg", row)
    parts = {"train.txt": range(6, 18), "test.txt": range(6), "database.txt": range(6, 30)}
    layouts.write_lists(lists, parts, "car_ims/{:06d}.jpg", 3)
    small = ("runner.classifier.epochs=1",) if method == "shc" else ()
    metrics = command(
        "train", f"method={method}", "dataset=lists", f"dataset.root={lists}",
        f"dataset.image_root={pictures}", *PIXELS, *small,
    )  # fmt: skip
    assert metrics["protocol"]["rows"] == {"train": 12, "val": 0, "query": 6, "database": 24}


def test_twdh(command, tmp_path):
    root, files = tmp_path / "mat", tmp_path / "TwDH" / "mirflickr"
    layouts.write_dcmht(root, tmp_path / "elsewhere")
    signs = torch.from_numpy(np.random.default_rng(0).choice([-1.0, 1.0], (3, 32)).astype("f"))
    for folder in ("long", "short", "trans/32"):
        (files / folder).mkdir(parents=True)
    torch.save(signs, files / "long" / "32.pkl")
    for length in (4, 8):
        torch.save(signs[:, :length].clone(), files / "short" / f"{length}.pkl")
        torch.save(torch.randn(64, 2 * length), files / "trans" / "32" / f"{length}.pkl")
    words = (
        "train", "method=twdh", "dataset=mat", f"dataset.root={root}",
        f"dataset.image_root={tmp_path / 'elsewhere'}", *NUMBERS, *PIXELS[:-1], "bits=8",
        "model.long_bits=32", "model.short_bits=[4,8]", f"model.files={files}",
    )  # fmt: skip
    protocol = command(*words, "runner.transform=files")["protocol"]
    assert protocol["centres"] == f"files in '{files}'"
    command(*words)  # our transform of their centres
