"""TwDH's runner: one long network for every length, reused, resumed, never mixed up."""

import shutil

import pytest
import yaml

from common.config.run_config import compose
from common.storage import checkpoint
from runners.staged import StageTraining
from runners.sweeps.sweep import expand, read_sweep, run_sweep
from runners.training.history import read_history
from tests.helpers import QUICK, outcome, run
from utils.errors import UserError

SMALL = (
    "method=twdh", *QUICK, "runner.epochs=4", "model.long_bits=32", "model.short_bits=[4,8]",
    "optim.lr=1e-2",
)  # fmt: skip
TRANSFORMS = ["transform_4", "transform_8"]


@pytest.fixture
def words(captioned, tmp_path, monkeypatch):
    """Words of a small run whose stages are its own: with the toy features, without any stage."""
    data = [word for word in captioned if not word.startswith("bits")]
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "cache"))
    return [*SMALL, *data]


@pytest.fixture
def epochs(monkeypatch):
    """Return a list that grows by one with every epoch trained."""
    done = []
    train = StageTraining._train_epoch

    def counting(self, *arguments):
        done.append(self.folder.path)
        return train(self, *arguments)

    monkeypatch.setattr(StageTraining, "_train_epoch", counting)
    return done


def stages_of(folder):
    return folder.metrics()["protocol"]["stages"]


def test_a_sweep_over_lengths_trains_once(words, epochs, tmp_path):
    settings = dict(word.split("=", 1) for word in words if not word.startswith("method"))
    content = {
        "grid": {"method": ["twdh"], "bits": [4, 8, 6, 32]},
        "set": {key: yaml.safe_load(value) for key, value in settings.items()},
        "output": str(tmp_path / "sweep"),
    }
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(content))
    outcomes = run_sweep(expand(read_sweep(file), file))
    assert [o.state for o in outcomes] == ["done"] * 4, [o.reason for o in outcomes]
    assert len(epochs) == 4, "one training of four epochs"
    folders = [run(*words, f"bits={bits}", f"output={tmp_path / 'sweep'}") for bits in (4, 8, 6)]
    assert len({stages_of(folder)["network"] for folder in folders}) == 1
    assert list(stages_of(folders[0])) == [*TRANSFORMS, "network"]
    assert list(stages_of(folders[2])) == ["transform_4", "transform_6", "transform_8", "network"]
    for bits, ended in ((4, outcomes[0]), (32, outcomes[3])):  # alone they come to the same
        shutil.rmtree(tmp_path / "cache" / "stages")
        alone = run(*words, f"bits={bits}", f"output={tmp_path / str(bits)}")
        both = run(*words, f"bits={bits}", f"output={tmp_path / 'sweep'}")
        assert ended.config.run_name == alone.path.name and outcome(alone) == outcome(both)
        assert len(outcome(alone)["query image"][0]) == bits
    assert len(epochs) == 12


def test_what_the_network_depends_on(words, epochs, tmp_path):
    words = [*words, f"output={tmp_path / 'out'}", "bits=8"]
    first = stages_of(run(*words))
    for same in ("runner.transform=projection", "eval.at=[all,5]", "loss.short_bits=[2]"):
        assert stages_of(run(*words, same))["network"] == first["network"], same
    assert len(epochs) == 4
    for other in ("seed=1", "loss.quan_alpha=0.1", "dataset.split.seed=3", "eval.select=last",
                  "eval.at=[5]"):  # fmt: skip
        assert stages_of(run(*words, other))["network"] != first["network"], other


def test_short_terms_make_the_network_depend_on_the_lengths(words, tmp_path):
    words = [*words, f"output={tmp_path / 'out'}", "loss.low_rate=0.5", "loss.short_bits=[4,8]"]
    four, eight, six = (stages_of(run(*words, f"bits={bits}"))["network"] for bits in (4, 8, 6))
    assert four == eight != six
    other = run(*words, "bits=4", "runner.transform=projection")
    assert stages_of(other)["network"] != four


def test_transforms_of_every_recipe(words, epochs, tmp_path):
    words = [*words, f"output={tmp_path / 'out'}", "bits=8", "runner.released.epochs=2"]
    codes, keys = [], set()
    for recipe in ("regression", "projection", "released"):
        folder = run(*words, f"runner.transform={recipe}")
        codes.append(outcome(folder)["database image"])
        keys.add(stages_of(folder)["transform_8"])
    assert len(keys) == 3 and len(epochs) == 4
    assert codes[0] != codes[2] and codes[1] != codes[2]
    text = (folder.path / "log.txt").read_text()
    assert "stage transform_8" in text and "centre_bits" in text and "found, made by" in text


@pytest.mark.parametrize("stop", [1, 3])
def test_a_killed_training_is_resumed_by_whichever_run_comes_next(
    stop, words, tmp_path, monkeypatch, epochs
):
    words = [*words, "eval.select=query"]
    whole = run(*words, "bits=8", f"output={tmp_path / 'whole'}")
    shutil.rmtree(tmp_path / "cache" / "stages")
    save = checkpoint.save

    def stopping(folder, modules, optimizers=(), rng=None, state=None):
        save(folder, modules, optimizers, rng, state)
        if state and state.get("config") and state.get("epoch") == stop:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint, "save", stopping)
        run(*words, "bits=6", f"output={tmp_path / 'torn'}")
    del epochs[:]
    resumed = run(*words, "bits=8", f"output={tmp_path / 'torn'}")
    assert len(epochs) == 4 - stop
    assert outcome(resumed) == outcome(whole)
    assert f"resumed after epoch {stop} of 4" in (resumed.path / "log.txt").read_text()
    assert run(*words, "bits=6", f"output={tmp_path / 'torn'}").is_done
    assert not list((tmp_path / "cache" / "stages").glob("*/checkpoints"))


@pytest.mark.parametrize("select", ["last", "val", "query"])
def test_the_epoch_is_that_of_the_long_code(select, words, tmp_path):
    words = [*words, f"eval.select={select}", f"output={tmp_path / 'out'}"]
    long, short = (run(*words, f"bits={bits}") for bits in (32, 4))
    selected = short.metrics()["protocol"]["selected"]
    assert selected == long.metrics()["protocol"]["selected"] and selected["on"] == select
    assert {p.name for p in short.checkpoints.iterdir()} == {"last" if select == "last" else "best"}
    if select == "query":  # what was selected on is what the long code reports
        values = [r["map"]["all"]["expected"] for r in long.metrics()["directions"].values()]
        assert selected["score"] == pytest.approx(sum(values) / len(values), abs=1e-12)


def test_curves_of_training_and_stages(words, tmp_path):
    folder = run(*words, "bits=4", "runner.tensorboard=true", f"output={tmp_path / 'out'}")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder.path / "tensorboard"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"loss/total", "loss/bce_image", "map/val", "lr/head"} <= tags
    assert {"stage/transform_4/centre_bits", "stage/network/score"} <= tags
    history = read_history(folder.path)
    assert [record.epoch for record in history] == [1, 2, 3, 4]
    other = run(*words, "bits=8", "runner.tensorboard=true", f"output={tmp_path / 'out'}")
    assert read_history(other.path) == history, "of the network that both share"
    assert {"stage_network_s", "stage_transform_4_s"} <= set(folder.metrics()["timing"])


def test_the_standard_runner_trains_a_length_on_its_own(words, tmp_path):
    words = [word for word in words if not word.startswith("runner.epochs")]
    folder = run(*words, "bits=8", "runner=standard", "runner.epochs=1", *QUICK[1:5],
                 f"output={tmp_path / 'out'}")  # fmt: skip
    assert folder.is_done and not (tmp_path / "cache" / "stages").exists()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("loss.name=dsph", "needs model.name=twdh and loss.name=twdh, not 'twdh' and 'dsph'"),
        ("runner.ridge=0", "runner.ridge=0.0 is not accepted; a number above 0"),
        ("runner.released.epochs=0", "runner.released.epochs=0 is not accepted"),
        ("runner.transform=magic", "'magic' is not one of regression, projection, released"),
        ("bits=64", "must lie between 1 and model.long_bits=32"),
        ("model.long_bits=48", "a power of two above the number of classes"),
    ],
)
def test_what_is_refused(word, message, words, tmp_path):
    with pytest.raises(UserError, match=message):
        run(*words, "bits=8", word, f"output={tmp_path / 'out'}")
    assert {p.name for p in (tmp_path / "out").glob("*")} <= {".claim"}


def test_the_method_file():
    config = compose(["method=twdh", "dataset=creatures_scenes"])
    assert config.runner.name == "twdh" and config.runner.config.transform == "regression"
    assert config.model.config.short_bits == (16, 32, 64)


@pytest.mark.parametrize("stop", [None, 2])
def test_epochs_of_directions_are_those_of_the_own_length(
    stop, words, tmp_path, monkeypatch, epochs
):
    words = [*words, "eval.select=query", "eval.epoch_per=direction", "eval.at=[5,all]"]
    whole = run(*words, "bits=8", f"output={tmp_path / 'whole'}")
    records = read_history(whole.path)
    selected = whole.metrics()["protocol"]["selected"]
    for direction, report in whole.metrics()["directions"].items():
        values = [record.measured.map[direction] for record in records]
        assert report["epoch"] == selected["epochs"][direction] == values.index(max(values)) + 1
        assert report["map"]["5"]["expected"] == max(values)  # of the codes that are kept
    run(*words, "bits=4", f"output={tmp_path / 'whole'}")
    assert len(epochs) == 8, "every length has chosen for itself"
    if stop:
        shutil.rmtree(tmp_path / "cache" / "stages")
        save = checkpoint.save

        def stopping(folder, modules, optimizers=(), rng=None, state=None):
            save(folder, modules, optimizers, rng, state)
            if state and state.get("config") and state.get("epoch") == stop:
                raise KeyboardInterrupt

        torn = [*words, "bits=8", f"output={tmp_path / 'torn'}"]
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(checkpoint, "save", stopping)
            run(*torn)
        assert outcome(run(*torn)) == outcome(whole)
