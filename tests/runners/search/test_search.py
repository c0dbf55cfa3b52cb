"""Codes of new pictures and texts, and search among them."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import main
from common.code_files import open_codes
from common.code_files.run_codes import read_codes
from common.codes import pack_codes, unpack_codes
from dataset.images import FileImages
from runners.search.collection import (
    Collection,
    image_files,
    nearest,
    read_collection,
    write_collection,
)
from runners.search.encoder import Encoder
from runners.search.search import encode_files, search_run, write_search_page
from tests.helpers import QUICK, run
from utils.errors import UserError


@pytest.fixture(scope="session")
def trained(toy_root, tmp_path_factory):
    """Return a function: method → folder of its finished run, trained once."""
    output, folders = tmp_path_factory.mktemp("runs"), {}

    def folder(method: str, words: list[str]) -> Path:
        if method not in folders:
            quick = () if method in ("lsh", "itq") else QUICK
            words = [*words, *quick, f"method={method}", f"output={output}", "eval.val_size=6"]
            folders[method] = run(*words).path
        return folders[method]

    return folder


@pytest.mark.parametrize("method", ["lsh", "itq", "dcmht", "dcmht_attention", "dsph"])
def test_codes_are_those_of_the_run(method, captioned, trained, toy_root):
    folder = trained(method, captioned)
    encoder = Encoder(folder)
    query, database, _ = read_codes(folder / "codes.h5")
    files = [f"{row}.png" for row in query.rows]
    codes, errors = encoder.encode_images(FileImages(files, toy_root / "captioned"))
    assert codes.tolist() == query.codes["image"].tolist() and not errors
    dataset_texts = main_texts(toy_root)
    codes = encoder.encode_texts([dataset_texts[row] for row in database.rows])
    assert codes.tolist() == database.codes["text"].tolist()


def main_texts(toy_root: Path) -> list[str]:
    import csv

    with open(toy_root / "captioned" / "list.csv", newline="") as stream:
        return [row["caption"] for row in csv.DictReader(stream)]


def test_pictures_only(pictures, trained, toy_root):
    folder = trained("cosine_proxy", pictures)
    with pytest.raises(UserError, match="hashes image only, so a text cannot be encoded"):
        Encoder(folder).encode_texts(["an ant"])
    result = search_run(str(folder), image=str(toy_root / "pictures" / "ant" / "0.png"), top=3)
    assert len(result.hits.rows) == 3 and result.collection.ids[0].endswith(".png")


@pytest.mark.parametrize("name", ["codes.h5", "codes.npz"])
def test_encode_a_folder(name, captioned, trained, toy_root, tmp_path, capsys):
    folder = trained("lsh", captioned)
    shutil.copytree(toy_root / "captioned", tmp_path / "mine" / "deep")
    (tmp_path / "mine" / "broken.png").write_bytes(b"no picture")
    words = ["encode", str(folder), "--images", str(tmp_path / "mine")]
    assert main.main([*words, "--out", str(tmp_path / name)]) == 0
    assert "48 codes of 16 bits" in capsys.readouterr().out
    result = read_collection(tmp_path / name)
    assert len(result) == 48 and "broken.png" not in result.ids
    assert result.modality == "image" and result.images.decode(0).shape == (8, 8, 3)
    query, _, _ = read_codes(folder / "codes.h5")
    codes = dict(zip(result.ids, unpack_codes(result.packed, 16).tolist(), strict=True))
    for row, code in zip(query.rows, query.codes["image"].tolist(), strict=True):
        assert codes[f"deep/{row}.png"] == code
    assert open_codes(tmp_path / name, labelled=False).rows == 48  # as metrics and export read it


def test_a_rotated_picture_is_encoded_as_it_is_seen(pictures, trained, toy_root, tmp_path, caplog):
    caplog.set_level("INFO", "hashing")
    folder = str(trained("cosine_proxy", pictures))
    (tmp_path / "phone").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    with Image.open(toy_root / "pictures" / "ant" / "0.png") as image:
        image.convert("RGB").save(tmp_path / "upright.png")
        turned = image.convert("RGB").transpose(Image.Transpose.ROTATE_90)
    turned.save(tmp_path / "phone" / "a", "PNG", exif=exif)  # no ending: read by content
    result = search_run(folder, image=str(tmp_path / "upright.png"), images=str(tmp_path / "phone"))
    assert result.collection.ids == ["a"] and result.hits.distances == [0]
    assert "RGB, EXIF rotation 1); colour=as_seen: rotated" in caplog.text


def test_encode_a_file_of_texts(captioned, trained, tmp_path):
    folder = trained("lsh", captioned)
    (tmp_path / "texts.txt").write_text("an ant\n\na bee in a meadow\n")
    out = tmp_path / "codes.h5"
    encode_files(str(folder), None, str(tmp_path / "texts.txt"), str(out))
    result = read_collection(out)
    assert result.ids == ["an ant", "a bee in a meadow"] and result.images is None


@pytest.mark.parametrize("modality", ["text", "image"])
def test_search_finds_the_nearest(modality, captioned, trained, toy_root, tmp_path):
    folder = trained("lsh", captioned)
    root = toy_root / "captioned"
    query = "a bee in a meadow" if modality == "text" else str(root / "3.png")
    result = search_run(str(folder), query=query, images=str(root), top=5)
    assert result.modality == modality
    encoder = Encoder(folder)
    if modality == "text":
        code = encoder.encode_texts([query])[0]
    else:
        code = encoder.encode_images(FileImages(["3.png"], root))[0][0]
    files = image_files(root)
    distances = (encoder.encode_images(FileImages(files, root))[0] != code).sum(1)
    assert result.hits.distances == sorted(distances)[:5]
    assert [distances[files.index(result.collection.ids[r])] for r in result.hits.rows] == (
        result.hits.distances
    )
    write_search_page(result, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().count("data:image/jpeg") == 5 + (
        modality == "image"
    )


def test_the_database_of_the_run_is_searched_when_nothing_else_is_named(
    captioned, trained, tmp_path, capsys
):
    folder = trained("lsh", captioned)
    page = tmp_path / "page.html"
    assert main.main(["search", str(folder), "--text", "bee", "--html", str(page)]) == 0
    printed = capsys.readouterr().out
    _, database, _ = read_codes(folder / "codes.h5")
    assert f"{len(database.rows)} codes of 16 bits searched in" in printed and page.is_file()


def test_codes_replaced_by_older_ones_are_searched_anew(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "codes.h5"
    for age in (10, 20):
        codes = rng.choice([-1, 1], (50, 12)).astype(np.int8)
        ids = [f"{i}.png" for i in range(50)]
        write_collection(Collection(pack_codes(codes), 12, ids, "image"), path)
        os.utime(path, (time.time() - age, time.time() - age))
        for _ in range(2):
            result = nearest(read_collection(path), codes[7], 4)
            assert result.distances == sorted((codes != codes[7]).sum(1))[:4]
    assert [file.name for file in tmp_path.iterdir()] == ["codes.h5"]


def test_100000_codes_are_searched(tmp_path):
    rng = np.random.default_rng(0)
    packed = rng.integers(0, 256, (100_000, 8), dtype=np.uint8)
    path = tmp_path / "codes.h5"
    collection = Collection(packed, 64, [f"{i}.jpg" for i in range(100_000)], "image")
    write_collection(collection, path)
    code = unpack_codes(packed[777:778], 64)[0]
    result = nearest(read_collection(path), code, 10)
    distances = np.bitwise_count(packed ^ packed[777]).sum(1)
    assert result.rows[0] == 777 and result.seconds > 0
    assert result.distances == sorted(distances.tolist())[:10]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({}, "one of --query, --text and --image"),
        ({"text": "a", "image": "b"}, "one of --query, --text and --image"),
        ({"text": "a", "images": "x", "codes": "y"}, "at most one of"),
        ({"text": "a", "top": 0}, "--top is 0"),
        ({"image": "gone.png"}, "'gone.png' does not exist"),
        ({"text": "a", "codes": "gone.h5"}, "is missing or is no file of"),
        ({"text": "a", "images": "gone"}, "is no folder"),
        ({"text": "a", "texts": "gone"}, "cannot be read as UTF-8"),
    ],
)
def test_what_search_refuses(more, message, captioned, trained):
    with pytest.raises(UserError, match=message):
        search_run(str(trained("lsh", captioned)), **more)


def test_what_encode_refuses(captioned, trained, tmp_path):
    folder = str(trained("lsh", captioned))
    with pytest.raises(UserError, match="one of --images DIR, --texts FILE and --features FILE"):
        encode_files(folder, None, None, "x.h5")
    with pytest.raises(UserError, match="neither .h5 nor .npz"):
        encode_files(folder, str(tmp_path), None, "x.txt")
    with pytest.raises(UserError, match="no picture in"):
        encode_files(folder, str(tmp_path), None, "x.h5")
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match="None of 1 pictures can be read"):
        encode_files(folder, str(tmp_path), None, "x.h5")


def test_a_run_without_checkpoint(captioned, trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained("dcmht", captioned), folder)
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(UserError, match="keeps no checkpoint"):
        Encoder(folder)


def test_other_code_lengths_do_not_compare(tmp_path):
    collection = Collection(np.zeros((3, 2), np.uint8), 16, ["a", "b", "c"], "text")
    with pytest.raises(UserError, match="query has 8 bits, the codes have 16"):
        nearest(collection, np.ones(8, np.int8), 1)


def test_one_picture(captioned, trained, tmp_path):
    (tmp_path / "one").mkdir()
    Image.new("L", (5, 9)).save(tmp_path / "one" / "grey.png")
    result = search_run(str(trained("dcmht", captioned)), text="bee", images=str(tmp_path / "one"))
    assert result.hits.rows == [0]
