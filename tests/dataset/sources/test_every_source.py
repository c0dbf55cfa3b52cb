"""Every dataset in its official layout, at small size: prepare, verify, two training steps."""

import shutil

import pytest

import main
from common.config.run_config import compose
from common.registry import DATASETS
from dataset.preparation.index import load_index
from dataset.preparation.prepared_dataset import PreparedConfig
from runners.base import run_config
from runners.commands.verify import verify
from tests.dataset.sources.layouts import SMALL, WRITERS, pack
from tests.helpers import PIXELS, QUICK
from utils.errors import UserError

SOURCES = [
    name for name in DATASETS.names() if issubclass(DATASETS.get(name).config, PreparedConfig)
]
FIGURES = {"rows", "classes", "train", "query", "database", "unlabelled"}


@pytest.fixture
def prepared(roots, tmp_path, monkeypatch):
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "cache"))
    return roots


def test_every_source_has_a_small_layout():
    assert sorted(WRITERS) == SOURCES


@pytest.mark.parametrize("name", SOURCES)
def test_two_training_steps(name, prepared, tmp_path):
    config = compose(
        [
            f"dataset={name}", f"dataset.root={prepared(name)}", *SMALL.get(name, []), *PIXELS,
            *QUICK, "runner.epochs=1", "runner.batch_size=12", "eval.select=last",
            f"output={tmp_path}", f"method={'dsph' if _has_texts(name, prepared) else 'csq'}",
        ]
    )  # fmt: skip
    metrics = run_config(config).metrics()
    assert metrics["split_hash"]
    assert metrics["protocol"]["split"].startswith(f"{name}/{config.dataset.config.split.name} of")


def _has_texts(name, prepared):
    return load_index(prepared(name), name).rows.texts is not None


@pytest.mark.parametrize("name", SOURCES)
def test_verify_finds_the_small_counts_and_nothing_else(name, prepared, capsys):
    root = str(prepared(name))
    wrong = [f for f in verify(name, root, SMALL.get(name, []), quick=False) if f.ok is False]
    assert {f.check.split()[-1] for f in wrong} <= {"all", "classes", "rows", "class"}, wrong
    assert any(f.check == "rows in all" for f in wrong)
    assert main.main(["verify", name, "--root", root, *SMALL.get(name, []), "--quick"]) == 1
    assert "differs: rows in all" in capsys.readouterr().out


@pytest.mark.parametrize("name", SOURCES)
def test_the_index_holds_what_the_files_say(name, prepared):
    index = load_index(prepared(name), name)
    images = DATASETS.get(name).config.source.images(prepared(name), index.rows.paths)
    assert images.decode(len(index.rows) - 1).ndim == 3
    assert (index.image_bytes > 0).all()


@pytest.mark.parametrize("name", SOURCES)
def test_preparing_again_changes_nothing(name, prepared, tmp_path):
    root = prepared(name)
    shutil.copytree(root, tmp_path / "copy")
    (tmp_path / "copy" / f"{name}.index.h5").unlink()
    before = (root / f"{name}.index.h5").read_bytes()
    assert main.main(["prepare", name, "--root", str(tmp_path / "copy")]) == 0
    assert (tmp_path / "copy" / f"{name}.index.h5").read_bytes() == before
    stamp = (root / f"{name}.index.h5").stat().st_mtime_ns
    assert main.main(["prepare", name, "--root", str(root)]) == 0
    assert (root / f"{name}.index.h5").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("name", SOURCES)
def test_an_empty_folder_says_what_to_put_where(name, tmp_path, capsys):
    assert main.main(["prepare", name, "--root", str(tmp_path / "new")]) == 2
    error = capsys.readouterr().err
    for file in DATASETS.get(name).config.source.files:
        if file.needed:
            assert f"'{tmp_path / 'new' / file.into / file.name}'" in error or (
                f"'{tmp_path / 'new' / file.name}'" in error
            )


@pytest.mark.parametrize("name", SOURCES)
def test_protocols_are_stated_in_full(name):
    source = DATASETS.get(name).config.source
    names = [protocol.name for protocol in source.protocols]
    assert len(set(names)) == len(names) and source.licence and source.title
    for protocol in source.protocols:
        assert protocol.papers and set(protocol.published) <= FIGURES
        assert set(protocol.per_class) <= {"train", "query", "database"}
    with pytest.raises(UserError, match="Known:"):
        source.protocol("nosuch")


@pytest.mark.parametrize(
    ("name", "archives"),
    [
        (
            "coco",
            {"annotations_trainval2017.zip": "annotations", "val2017.zip": "val2017",
             "train2017.zip": "train2017"},
        ),
        ("flickr25k", {"mirflickr25k.zip": "mirflickr"}),
        (
            "nuswide",
            {"Groundtruth.zip": "Groundtruth", "ImageList.zip": "ImageList",
             "NUS_WID_Tags.zip": "NUS_WID_Tags", "Flickr.zip": "Flickr"},
        ),
    ],
)  # fmt: skip
def test_from_archives(name, archives, tmp_path, prepared):
    WRITERS[name](tmp_path)
    for archive, folder in archives.items():
        pack(tmp_path / archive, tmp_path / folder, base=tmp_path)
        shutil.rmtree(tmp_path / folder)
    if name == "flickr25k":  # whose annotations lie in no folder of their own
        folder = tmp_path / "mirflickr25k_annotations_v080"
        pack(tmp_path / "mirflickr25k_annotations_v080.zip", folder, base=folder)
        shutil.rmtree(folder)
    assert main.main(["prepare", name, "--root", str(tmp_path)]) == 0
    same = load_index(prepared(name), name).content
    assert load_index(tmp_path, name).content == same
