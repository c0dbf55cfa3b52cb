"""SHC's runner: three stages, each reused by every run that depends on the same."""

import math
import shutil

import pytest
import torch
from safetensors.torch import load_file

from common.config.run_config import compose
from common.storage import checkpoint
from models.centers.class_similarity import class_similarity
from models.centers.semantic import gilbert_varshamov, semantic_centers
from runners.staged import StageTraining
from runners.training.history import read_history
from tests.helpers import QUICK, outcome, run
from utils.errors import UserError

SMALL = (
    "method=shc", *QUICK, "runner.classifier.epochs=2", "runner.effort=0.001", "eval.every=1",
    "optim.lr=1e-2",
)  # fmt: skip


@pytest.fixture
def words(pictures, tmp_path, monkeypatch):
    """Words of a small run whose stages are its own."""
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "cache"))
    return [*SMALL, *pictures, f"output={tmp_path / 'out'}"]


@pytest.fixture
def epochs(monkeypatch):
    """Return a list that grows by one with every epoch of a classifier."""
    done = []
    train = StageTraining._train_epoch

    def counting(self, *arguments):
        done.append(self.folder.path)
        return train(self, *arguments)

    monkeypatch.setattr(StageTraining, "_train_epoch", counting)
    return done


def stages_of(folder):
    return folder.metrics()["protocol"]["stages"]


def stored(tmp_path, folder, name, file, key=None):
    path = tmp_path / "cache" / "stages" / f"{name}-{stages_of(folder)[name]}"
    return load_file(path / f"{file}.safetensors")[key or file]


def test_the_stages_are_what_the_functions_say(words, tmp_path):
    folder = run(*words)
    logits = stored(tmp_path, folder, "classifier", "logits")
    label = stored(tmp_path, folder, "classifier", "logits", "label")
    assert logits.shape == label.shape == (folder.metrics()["protocol"]["rows"]["train"], 3)
    similarity = stored(tmp_path, folder, "similarity", "similarity")
    torch.testing.assert_close(similarity, class_similarity(logits, label))
    centers = stored(tmp_path, folder, "centers", "centers")
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(centers, semantic_centers(similarity, 16, generator, effort=0.001))
    figures = folder.metrics()["protocol"]["centers"]
    assert figures["kind"] == "semantic"
    assert figures["asked"] == gilbert_varshamov(16, 3) <= figures["min"]
    stage = tmp_path / "cache" / "stages" / f"classifier-{stages_of(folder)['classifier']}"
    assert [sorted(r.loss) for r in read_history(stage)] == [["cls", "total"]] * 2
    assert [sorted(r.loss) for r in read_history(folder.path)] == [["center", "quant", "total"]] * 3
    saved = load_file(folder.checkpoints / "best" / "loss.safetensors")
    assert torch.equal(saved["centers"], centers)


def test_what_each_stage_depends_on(words, epochs):
    first = stages_of(run(*words))
    assert list(first) == ["classifier", "similarity", "centers"] and len(epochs) == 2
    kept = {
        ("bits=8",): 2, ("loss.lambda_quant=0.1",): 3, ("eval.at=[5]",): 3, ("runner.epochs=1",): 3,
        ("runner.mu=0.01",): 2, ("runner.min_distance=2",): 2, ("runner.own_class=predicted",): 1,
        ("runner.weighting=mean",): 1,
    }  # fmt: skip
    for word, same in kept.items():
        other = stages_of(run(*words, *word))
        assert [other[name] == first[name] for name in first] == [True] * same + [False] * (
            3 - same
        ), word
    assert len(epochs) == 2
    for word in ("seed=1", "dataset.split.seed=3", "runner.classifier.cross_entropy=logits",
                 "runner.classifier.lr=1e-3", "model.standardize=true",
                 "runner.classifier.floor=0", "runner.classifier.logits_of=augmented"):  # fmt: skip
        other = stages_of(run(*words, word))
        assert all(other[name] != first[name] for name in first), word


def test_a_classifier_with_a_rate_of_its_own_does_not_depend_on_the_other(words, epochs):
    words = [*words, "runner.classifier.lr=1e-3"]
    first, second = (stages_of(run(*words, f"optim.lr={lr}")) for lr in ("1e-2", "2e-2"))
    assert first == second and len(epochs) == 2


def test_the_rate_of_the_classifier_falls_to_a_floor_of_its_own(words, tmp_path):
    words = [*words, "schedule.floor=0.5", "runner.classifier.epochs=4"]
    for word, last in (("runner.classifier.floor=0", 0.0), ("runner.effort=0.001", 0.5)):
        folder = run(*words, word)
        stage = tmp_path / "cache" / "stages" / f"classifier-{stages_of(folder)['classifier']}"
        rates = [record.lr["head"] for record in read_history(stage)]
        wanted = [
            1e-2 * (last + (1 - last) * (1 + math.cos(math.pi * e / 4)) / 2) for e in range(4)
        ]
        assert rates == pytest.approx(wanted)


def test_the_logits_may_be_of_augmented_pictures(words, tmp_path):
    words = [*words, "data.train_image=[squash 224 bicubic, flip 0.5]"]
    kinds = ("plain", "augmented")
    folders = [run(*words, f"runner.classifier.logits_of={kind}") for kind in kinds]
    plain, augmented = (stored(tmp_path, f, "classifier", "logits") for f in folders)
    changed = (plain - augmented).abs().amax(1) > 1e-6
    assert changed.any() and not changed.all()  # a flip leaves about half as they are


def test_reused_stages_and_built_stages_give_the_same_results(words, tmp_path):
    built = outcome(run(*words))
    shutil.rmtree(tmp_path / "out")
    reused = run(*words)
    assert outcome(reused) == built
    assert "found, made by" in (reused.path / "log.txt").read_text()
    shutil.rmtree(tmp_path / "out")
    shutil.rmtree(tmp_path / "cache" / "stages")
    assert outcome(run(*words)) == built


@pytest.mark.parametrize("torn", ["classifier", "network"])
def test_a_killed_run_is_resumed(torn, words, tmp_path, monkeypatch, epochs):
    whole = outcome(run(*words))
    shutil.rmtree(tmp_path / "out")
    shutil.rmtree(tmp_path / "cache" / "stages")
    del epochs[:]
    save = checkpoint.save

    def stopping(folder, modules, optimizers=(), rng=None, state=None):
        save(folder, modules, optimizers, rng, state)
        stage = "classifier" if "classifier" in modules else "network"
        if stage == torn and state and state.get("epoch") == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint, "save", stopping)
        run(*words)
    resumed = run(*words)
    assert outcome(resumed) == whole and len(epochs) == 2
    epochs_there = {"classifier": 2, "network": 3}[torn]
    text = (resumed.path / "log.txt").read_text()
    assert f"resumed after epoch 1 of {epochs_there}" in text


def test_several_labels_and_every_option(captioned, tmp_path, monkeypatch):
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "cache"))
    words = [*SMALL, *captioned, f"output={tmp_path / 'out'}"]
    codes = []
    for several in ("vote", "first"):
        folder = run(
            *words, f"loss.several={several}", "loss.quantizer=output", "model.standardize=true",
            "runner.classifier.cross_entropy=logits", "runner.own_class=predicted",
            "runner.weighting=mean", "runner.mu=0.001", "bits=12",
        )  # fmt: skip
        codes.append(outcome(folder)["database image"])
    assert codes[0] != codes[1]


@pytest.mark.parametrize("kind", ["hadamard", "mds", "bernoulli"])
def test_other_centers_need_no_classifier(kind, words, epochs):
    folder = run(*words, f"runner.centers={kind}")
    assert list(stages_of(folder)) == ["centers"] and not epochs
    figures = folder.metrics()["protocol"]["centers"]
    assert figures["kind"] == kind and "objective" not in figures and "asked" not in figures


def test_a_distance_out_of_reach_is_logged(words):
    folder = run(*words, "runner.min_distance=16")
    figures = folder.metrics()["protocol"]["centers"]
    assert figures["asked"] == 16 and figures["min"] == 10  # three codes of 16 bits
    assert "no 3 of distance 16 were found; they keep 10" in (folder.path / "log.txt").read_text()


def test_curves_and_pictures(words):
    folder = run(*words, "runner.tensorboard=true")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def tags_in(folder):
        events = EventAccumulator(str(folder))
        events.Reload()
        return events.Tags()

    tags = tags_in(folder.path / "tensorboard")
    assert {"stage/centers/products", "stage/centers/distances"} <= set(tags["images"])
    assert {
        "stage/classifier/train_accuracy", "stage/similarity/asymmetry", "stage/centers/objective",
        "loss/center", "loss/quant", "map/val",
    } <= set(tags["scalars"])  # fmt: skip
    assert "loss/cls" in tags_in(folder.path / "tensorboard" / "classifier")["scalars"]
    assert {f"stage_{name}_s" for name in stages_of(folder)} <= set(folder.metrics()["timing"])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("loss.name=hashnet", "makes hash centres for loss.name=shc, not for 'hashnet'"),
        ("runner.classifier.epochs=0", "runner.classifier.epochs=0 is not accepted"),
        ("runner.effort=0", "runner.effort=0.0 is not accepted; a number above 0"),
        ("runner.min_distance=17", "min_distance=17 is not accepted with bits=16; 0 to 16"),
        (
            "schedule.name=constant runner.classifier.floor=0",
            "runner.classifier.floor=0.0 is of a cosine schedule, and .* schedule.name=constant",
        ),
        ("runner.centers=magic", "'magic' is not one of semantic, hadamard"),
    ],
)
def test_what_is_refused(word, message, words, tmp_path):
    with pytest.raises(UserError, match=message):
        run(*words, *word.split())
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_the_method_file():
    config = compose(["method=shc", "dataset=creatures_image"])
    assert config.runner.name == "shc" and config.runner.config.classifier.epochs == 100
    assert config.optim["head"].schedule.config.floor * config.optim["head"].lr == pytest.approx(
        1e-7
    )
