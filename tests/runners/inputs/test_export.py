"""Runs on features: equal to those on the encoder, and to methods computed here by hand."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import main
from common.code_files.run_codes import read_codes
from common.codes import pack_codes
from runners.search.collection import read_collection
from tests.helpers import PIXELS, QUICK, outcome, run, write_captioned

ENCODER = PIXELS[:3]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with captioned pictures and their exported features."""
    root = tmp_path_factory.mktemp("features")
    write_captioned(root / "photos")
    patch = pytest.MonkeyPatch()
    patch.setenv("HASHING_CACHE", str(root / "cache"))
    words = ["dataset=folder", f"dataset.root={root / 'photos'}", "dataset.csv=list.csv", *ENCODER]
    assert main.main(["features", *words, "--tokens", "--out", str(root / "f.h5")]) == 0
    yield root, [*words, f"output={root / 'runs'}"]
    patch.undo()


def features_run(root: Path, *words: str):
    return run(
        "dataset=features", f"dataset.root={root / 'f.h5'}", f"output={root / 'runs'}", *words
    )


def codes_of(folder, part: int = 0):
    return read_codes(folder.codes_file)[part].codes


def test_the_file_holds_what_the_encoder_gives(place, capsys):
    root, _ = place
    with h5py.File(root / "f.h5") as file:
        assert file["image"].shape == (48, 192) and file["text"].shape == (96, 32)
        assert file["image_tokens"].shape == (48, 16, 12) and file["text_mask"].shape == (96, 64)
        assert file["paths"].asstr()[3].endswith("/3.png") and len(file["query"]) == 6
        np.testing.assert_array_equal(file["text_offsets"], np.arange(0, 97, 2))


@pytest.mark.parametrize("method", ["dcmht", "orthohash", "itq"])
def test_codes_are_those_of_the_frozen_encoder(place, method):
    root, folder_words = place
    words = ["bits=16", f"method={method}", *(() if method == "itq" else QUICK)]
    frozen, given = outcome(run(*folder_words, *words)), outcome(features_run(root, *words))
    same = [key for key in frozen if key != "metrics"]
    assert {key: frozen[key] for key in same} == {key: given[key] for key in same}
    assert frozen["metrics"]["directions"] == given["metrics"]["directions"]


def arrays_of(root: Path):
    rng = np.random.default_rng(5)
    labels = np.arange(60) % 3
    image = (rng.normal(size=(60, 8)) + labels[:, None]).astype(np.float32)
    parts = {"query": np.arange(12), "train": np.arange(12, 60), "database": np.arange(12, 60)}
    np.savez(root / "plain.npz", image=image, labels=labels, **parts)
    return image, parts


def test_itq_is_that_of_the_paper_computed_here(place):
    root, _ = place
    image, parts = arrays_of(root)
    x = image[parts["train"]].astype(np.float64)
    mean = x.mean(0)
    covariance = (x - mean).T @ (x - mean)
    basis = torch.linalg.eigh(torch.from_numpy(covariance))[1].numpy()[:, ::-1][:, :4]  # its signs
    start = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).double()
    rotation, projected = torch.linalg.qr(start)[0].numpy(), (x - mean) @ basis
    for _ in range(50):
        left, _, right = np.linalg.svd(projected.T @ np.where(projected @ rotation >= 0, 1, -1))
        rotation = left @ right
    wanted = np.where((image[parts["query"]] - mean) @ basis @ rotation >= 0, 1, -1)
    words = [f"dataset.root={root / 'plain.npz'}", "bits=4", f"output={root / 'runs'}"]
    folder = run("method=itq", "dataset=features", *words)
    np.testing.assert_array_equal(codes_of(folder)["image"], wanted)


def test_lsh_is_the_sign_of_random_projections(place):
    root, _ = place
    image, parts = arrays_of(root)
    directions = torch.randn(8, 16, generator=torch.Generator().manual_seed(3)).numpy()
    wanted = (image[parts["query"]] - image[parts["train"]].mean(0)) @ directions >= 0
    words = [f"dataset.root={root / 'plain.npz'}", "bits=16", "seed=3", f"output={root / 'runs'}"]
    folder = run("method=lsh", "dataset=features", *words)
    np.testing.assert_array_equal(codes_of(folder)["image"] == 1, wanted)


def test_encode_and_search_on_a_run_of_features(place, tmp_path, capsys):
    root, _ = place
    bare = str(features_run(root, "bits=16", "method=itq").path)
    stated = str(features_run(root, "bits=16", "method=itq", *ENCODER).path)
    out = tmp_path / "codes.h5"
    given = ["--features", f"{root / 'f.h5'}:image", "--out", str(out)]
    assert main.main(["encode", bare, *given]) == 0
    database, found = read_codes(Path(bare) / "codes.h5")[1], read_collection(out)
    packed = pack_codes(database.codes["image"])
    np.testing.assert_array_equal(found.packed[database.rows], packed)
    assert found.ids[3].endswith("/3.png") and len(found) == 48
    photos = str(root / "photos")
    assert main.main(["encode", bare, "--images", photos, "--out", str(tmp_path / "x.h5")]) == 2
    assert "no image can be encoded without the encoder that made them" in capsys.readouterr().err
    assert main.main(["encode", stated, "--images", photos, "--out", str(tmp_path / "x.h5")]) == 0
    assert main.main(["search", stated, "--image", f"{photos}/3.png", "--top", "1"]) == 0
    assert main.main(["encode", bare, "--features", str(root / "f.h5"), "--out", str(out)]) == 2
    assert "has features of both" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method=dcmht", "backbone=clip_vit_b32"], "would be fine-tuned, but features are fixed"),
        (
            ["method=dcmht", "data.train_image=[squash 8 bicubic, flip 0.5]"],
            "changes pictures by chance",
        ),
        (["method=vtph", "data.generated=x"], "holds pictures and captions"),
    ],
)
def test_what_features_cannot_do(place, words, message, capsys):
    root, _ = place
    arguments = ["dataset=features", f"dataset.root={root / 'f.h5'}", f"output={root / 'runs'}"]
    assert main.main(["train", *arguments, *words]) == 2
    assert message in capsys.readouterr().err


def test_tokens_are_needed_where_they_are_read(place, capsys):
    root, _ = place
    image, _ = arrays_of(root)
    np.savez(root / "two.npz", image=image, text=image, labels=np.arange(60) % 3)
    words = ["method=mith", "dataset=features", f"dataset.root={root / 'two.npz'}"]
    assert main.main(["train", *words, f"output={root / 'runs'}"]) == 2
    assert "reads token features, which the file of features lacks" in capsys.readouterr().err


def test_mith_reads_tokens_of_the_file(place):
    root, _ = place
    rng = np.random.default_rng(2)
    labels = np.arange(60) % 3
    arrays = {m: rng.normal(size=(60, 8)).astype("f2") for m in ("image", "text")}
    arrays |= {f"{m}_tokens": rng.normal(size=(60, 5, 8)).astype("f2") for m in ("image", "text")}
    mask = np.zeros((60, 5), np.uint8)
    mask[:, 3:] = 1
    np.savez(root / "tokens.npz", labels=labels, text_mask=mask, **arrays)
    words = ["method=mith", "dataset=features", f"dataset.root={root / 'tokens.npz'}", "bits=16"]
    before = codes_of(run(*words, *QUICK, f"output={root / 'runs'}"))
    arrays["text_tokens"][:, 3:] = 7  # hidden
    np.savez(root / "tokens.npz", labels=labels, text_mask=mask, **arrays)
    after = codes_of(run(*words, *QUICK, f"output={root / 'again'}"))
    np.testing.assert_array_equal(before["text"], after["text"])


def test_an_export_that_would_overwrite(place, capsys):
    root, words = place
    assert main.main(["features", *words[:-1], "--out", str(root / "f.h5")]) == 2
    assert "exists" in capsys.readouterr().err
    assert main.main(["features", *words[:-1], "--out", str(root / "f.npz")]) == 2
    assert main.main(["features", "dataset=features", f"dataset.root={root / 'f.h5'}", "--out",
                      str(root / "g.h5")]) == 2  # fmt: skip
    assert "holds features already" in capsys.readouterr().err
