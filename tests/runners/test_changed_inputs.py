"""Other content under the same name: nothing goes on with it, or answers from it, unasked."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import main
from common.code_files.run_codes import read_identity
from common.config.run_config import compose
from common.storage import checkpoint
from common.storage.identity import ChangedError
from common.storage.run_folder import RunFolder
from dataset.image_cache import ImageCache
from dataset.images import FileImages
from dataset.operation_lists import ImageOperations
from runners.base import run_config
from runners.inputs import loading
from runners.search.collection import read_collection
from runners.search.encoder import Encoder
from runners.search.search import encode_files, search_run
from runners.sweeps.queue import Rules
from runners.sweeps.sweep import run_sweep
from tests.helpers import CLASSES, QUICK, picture

ARCHITECTURE = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 8, "layers": 1, "width": 8, "head_width": 8, "patch_size": 4},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
}


def write_weights(path: Path, seed: int) -> None:
    """Write an encoder's weights; those of every seed take as many bytes."""
    import open_clip

    torch.manual_seed(seed)
    sizes = ARCHITECTURE["vision_cfg"], ARCHITECTURE["text_cfg"]
    network = open_clip.CustomTextCLIP(ARCHITECTURE["embed_dim"], *sizes)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, path)


def write_pictures(root: Path, seed: int, per_class: int = 12) -> None:
    """Write class folders of pictures that take equal bytes whatever they show."""
    rng = np.random.default_rng(seed)
    for c, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(per_class):
            Image.fromarray(picture(rng, [c])).save(root / name / f"{i}.bmp")


def files_of(place: Path) -> list[Path]:
    return [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.is_file())


def keeping_stats(place: Path, write: Callable[[], None]) -> None:
    """Have ``write`` put other bytes in place, then set all times back, as a thief would."""
    before = {file: (file.read_bytes(), file.stat()) for file in files_of(place)}
    write()
    for file, (data, status) in before.items():
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert file.stat().st_size == status.st_size and file.read_bytes() != data


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """Return a folder with pictures, an encoder and a cache of its own."""
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "cache"))
    write_pictures(tmp_path / "pictures", 0)
    (tmp_path / "tiny.json").write_text(json.dumps(ARCHITECTURE))
    write_weights(tmp_path / "weights.safetensors", 0)
    another_process()
    return tmp_path


def another_process() -> None:
    """Forget encoders and data that this process keeps."""
    loading._datasets.clear()
    loading._backbones.clear()


def words(home: Path, *more: str, method: str = "csq") -> list[str]:
    return [
        f"method={method}", "dataset=folder", f"dataset.root={home / 'pictures'}", "bits=16",
        "backbone=open_clip", f"backbone.model={home / 'tiny.json'}", "backbone.freeze=all",
        f"backbone.weights={home / 'weights.safetensors'}", f"output={home / 'out'}",
        *(QUICK if method != "lsh" else ()), *more,
    ]  # fmt: skip


def train(words: list[str], accept: bool = False) -> RunFolder:
    another_process()
    return run_config(compose(words), accept_changed=accept)


def killed(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Train until the checkpoint of the second epoch."""
    save = checkpoint.save

    def stopping(folder, modules, optimizers=(), rng=None, state=None):
        save(folder, modules, optimizers, rng, state)
        if state and state.get("epoch") == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint, "save", stopping)
        train(words)


def change(home: Path, what: str) -> None:
    """Replace encoder or pictures by others of equal names, sizes and times."""
    if what == "encoder":
        weights = home / "weights.safetensors"
        keeping_stats(weights, lambda: write_weights(weights, 1))
    else:
        keeping_stats(home / "pictures", lambda: write_pictures(home / "pictures", 1))
    another_process()


def both(what: str, text: str, was: dict, now: dict | None = None) -> None:
    """Require one sentence with the former and the present fingerprint."""
    assert "\n" not in text and "--accept-changed" in text
    found = re.search(rf"was made with {what} (\w{{16}}), but .* is now {what} (\w{{16}});", text)
    assert found and found[1] == was[what] and found[2] != was[what], text
    assert now is None or found[2] == now[what]


@pytest.mark.parametrize("what", ["encoder", "data"])
def test_a_killed_run_does_not_go_on_with_another(what, home, monkeypatch):
    killed(words(home), monkeypatch)
    (run_folder,) = (path for path in (home / "out").iterdir() if path.name != ".claim")
    folder = RunFolder(run_folder)
    was = folder.identity
    saved = checkpoint.read_state(folder.checkpoints / "last")
    change(home, what)
    features = sorted((home / "cache" / "features").glob("*.h5"))
    with pytest.raises(ChangedError) as error:
        train(words(home))
    both(what, str(error.value), was)
    assert features == sorted((home / "cache" / "features").glob("*.h5"))  # refused before work
    assert checkpoint.read_state(folder.checkpoints / "last") == saved
    assert saved["identity"] == was == folder.identity  # what was is still there to go on from

    assert train(words(home), accept=True).is_done
    accepted = folder.status()["accepted_changes"]
    assert [(a["what"], a["was"], a["is"]) for a in accepted] == [
        (what, was[what], folder.identity[what])
    ]
    assert folder.metrics()["protocol"]["accepted_changes"] == accepted
    assert read_identity(folder.codes_file) == folder.identity != was


def test_a_killed_run_goes_on_when_all_is_as_it_was(home, monkeypatch):
    killed(words(home), monkeypatch)
    change(home, "encoder")
    with pytest.raises(ChangedError):
        train(words(home))
    write_weights(home / "weights.safetensors", 0)  # put back
    shutil.copytree(home / "pictures", home / "copy")  # other inodes and times, equal content
    shutil.rmtree(home / "pictures")
    (home / "copy").rename(home / "pictures")
    resumed = train(words(home))
    assert "accepted_changes" not in resumed.metrics()["protocol"]
    assert "resumed after epoch 2 of 3" in (resumed.path / "log.txt").read_text()


def test_a_run_without_checkpoint_begins_with_what_there_is(home, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("runners.standard.StandardRunner._train_epochs", interrupted)
        train(words(home))
    change(home, "encoder")
    folder = train(words(home))
    assert folder.is_done and folder.status()["accepted_changes"] == []
    assert read_identity(folder.codes_file) == folder.identity


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("method", ["csq", "lsh"])
@pytest.mark.parametrize("what", ["encoder", "data"])
def test_a_finished_run_answers_with_its_own_encoder_and_data_alone(what, method, home, capsys):
    folder = train(words(home, method=method))
    query = str(home / "pictures" / "ant" / "0.bmp")
    pictures, out = str(home / "pictures"), str(home / "codes.h5")
    search_run(str(folder.path), image=query, images=pictures)
    cached = set((home / "cache" / "codes").glob("*.h5"))
    change(home, what)
    for command in (
        ["search", str(folder.path), "--image", query],
        ["encode", str(folder.path), "--images", pictures, "--out", out],
    ):
        another_process()
        assert main.main(command) == 2
        both(what, capsys.readouterr().err.splitlines()[-1], folder.identity)
        another_process()
        assert main.main([*command, "--accept-changed"]) == 0
        assert capsys.readouterr().err.count("accepted:") == 1
    assert [a["what"] for a in folder.status()["accepted_changes"]] == [what]
    another_process()
    search_run(str(folder.path), image=query, images=pictures, accept_changed=True)
    new = set((home / "cache" / "codes").glob("*.h5")) - cached
    assert len(new) == 1  # no codes of before answer
    assert read_collection(Path(out)).packed.tobytes() == read_collection(*new).packed.tobytes()


def test_codes_of_another_model_are_not_searched(home):
    runs = [train(words(home, f"seed={seed}")) for seed in (0, 1)]
    out, query = str(home / "codes.npz"), str(home / "pictures" / "ant" / "0.bmp")
    encode_files(str(runs[0].path), str(home / "pictures"), None, out)
    search_run(str(runs[0].path), image=query, codes=out)
    marks = [Encoder(run.path).fingerprint for run in runs]
    with pytest.raises(ChangedError, match=f"model {marks[0]} .* is model {marks[1]};"):
        search_run(str(runs[1].path), image=query, codes=out)
    search_run(str(runs[1].path), image=query, codes=out, accept_changed=True)


def test_evaluate_measures_the_codes_of_the_run_alone(home, capsys):
    mine = train(words(home))
    change(home, "encoder")
    other = train([*words(home), f"output={home / 'other'}"])
    assert main.main(["evaluate", str(mine.path)]) == 0  # needs neither encoder nor data
    shutil.copy(other.codes_file, mine.codes_file)
    mine.record_again(mine.codes_file.name)
    capsys.readouterr()
    assert main.main(["evaluate", str(mine.path)]) == 2
    both("encoder", capsys.readouterr().err.splitlines()[-1], mine.identity, other.identity)
    assert main.main(["evaluate", str(mine.path), "--accept-changed"]) == 0
    (accepted,) = mine.metrics()["protocol"]["accepted_changes"]
    assert (accepted["command"], accepted["is"]) == ("evaluate", other.identity["encoder"])


def test_a_run_of_an_earlier_version_says_that_it_cannot_be_compared(home, caplog):
    folder = train(words(home))
    folder.set_status("done", identity=None)
    for name in ("best", "last"):
        file = folder.checkpoints / name / "state.json"
        state = json.loads(file.read_text())
        state["crc32"].pop("state")  # earlier versions had none either
        file.write_text(json.dumps({k: v for k, v in state.items() if k != "identity"}))
    change(home, "encoder")
    Encoder(folder.path)
    assert "records no fingerprints" in caplog.text


def test_a_sweep_goes_on_knowingly(home, monkeypatch):
    killed(words(home), monkeypatch)
    change(home, "data")
    configs = [compose(words(home))]
    (refused,) = run_sweep(configs)
    assert refused.state == "failed" and "--accept-changed" in refused.reason
    another_process()
    (outcome,) = run_sweep(configs, rules=Rules(accept_changed=True), again=True)
    assert outcome.state == "done"


def test_folders_with_equal_names_sizes_and_times_share_nothing(home):
    shutil.copytree(home / "pictures", home / "twin")  # times too
    keeping_stats(home / "twin", lambda: write_pictures(home / "twin", 1))
    names = [f"ant/{i}.bmp" for i in range(5)]
    mine, twin = (FileImages(names, home / folder) for folder in ("pictures", "twin"))
    for name in names:
        one, two = ((source.root / name).stat() for source in (mine, twin))
        assert (one.st_size, one.st_mtime_ns) == (two.st_size, two.st_mtime_ns)
    assert mine.fingerprint != twin.fingerprint
    geometry, _ = ImageOperations.parse(["squash 8 bicubic"], "").split()
    arrays = [ImageCache.open(source, (geometry,)).images(geometry) for source in (mine, twin)]
    assert (arrays[0] != arrays[1]).any()


def test_pictures_that_change_while_they_are_read_are_not_cached(home, monkeypatch):
    source = FileImages([f"ant/{i}.bmp" for i in range(5)], home / "pictures")
    geometry, _ = ImageOperations.parse(["squash 8 bicubic"], "").split()
    decode = FileImages.decode

    def writing(self, row):
        image = decode(self, row)
        if row == 4:
            Image.new("RGB", (8, 8)).save(home / "pictures" / "ant" / "0.bmp")
        return image

    with monkeypatch.context() as patch:
        patch.setattr(FileImages, "decode", writing)
        with pytest.raises(Exception, match="changed while they were read"):
            ImageCache.open(source, (geometry,))
    assert not ImageCache.open(source, (geometry,)).images(geometry)[0].any()


def test_pictures_that_change_between_two_runs_of_a_process_are_seen(home):
    first = train(words(home))
    keeping_stats(home / "pictures", lambda: write_pictures(home / "pictures", 1))
    second = run_config(compose(words(home, "seed=1")))  # dataset and encoder are in memory
    assert first.identity["encoder"] == second.identity["encoder"]
    assert first.identity["data"] != second.identity["data"]


def test_an_untrained_encoder_is_that_of_the_seed_whatever_ran_before(home):
    random = words(home, "backbone.weights=random")
    alone = train([*random, "seed=1", f"output={home / 'alone'}"]).identity["encoder"]
    zero = train([*random, "seed=0"]).identity["encoder"]
    kept = run_config(compose([*random, "seed=1"]))  # in the process of seed 0
    assert kept.identity["encoder"] == alone != zero
    torch.manual_seed(5)
    another_process()
    assert Encoder(kept.path).identity.as_json() == kept.identity
