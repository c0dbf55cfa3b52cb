"""Painted pictures of classes on their way from a folder into training, codes and metrics."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

import main
from common.config.run_config import compose
from dataset.images import FileImages
from runners.experiment import Experiment
from runners.search.encoder import Encoder
from runners.training.module import TrainingModule
from tests.helpers import PIXELS, QUICK, outcome, run
from utils.errors import UserError

DATA = ("creatures_zeroshot", "dataset.rows=250", "dataset.split.query=1", "dataset.split.train=2")
SEEN, UNSEEN = 40, 10
WORDS = [
    f"dataset={DATA[0]}", *DATA[1:], *PIXELS, *QUICK, "method=pzsh", "model.hidden=8",
    "eval.select=last", "runner.epochs=1",
]  # fmt: skip


@pytest.fixture(autouse=True)
def cache(toy_root, monkeypatch):
    monkeypatch.setenv("HASHING_CACHE", str(toy_root / "cache"))


@pytest.fixture(scope="session")
def painted(tmp_path_factory):
    """Return a folder with two pictures of every class, and their features by ``PIXELS``."""
    out = tmp_path_factory.mktemp("painted") / "out"
    given = [*DATA, *PIXELS[:3], "--method", "pzsh", "--model", "creatures", "--out", str(out)]
    code = main.main(["generate", *given, "--count", "2", "--features", "--device", "cpu"])
    assert code == 0
    return out


def build(*words):
    return Experiment.build(compose([*WORDS, *words]))


def everything(experiment, part="train"):
    view = experiment.view(part)
    return view.__getitems__(range(len(view)))


def test_training_rows_and_their_pictures(painted):
    experiment = build(f"data.generated={painted}")
    batch = everything(experiment)
    assert len(batch) == experiment.problem.n_train == 2 * SEEN + 2 * UNSEEN
    assert (
        batch.label[-2 * UNSEEN :, SEEN:].sum() == 2 * UNSEEN and not batch.label[:-20, SEEN:].any()
    )
    features = batch.image_features.pooled
    target = batch.auxiliary["pseudo"].image_features.pooled
    assert torch.equal(features[-2 * UNSEEN :], target[-2 * UNSEEN :]), "their own pseudo-images"
    assert not any(torch.equal(a, b) for a, b in zip(features[:80], target[:80], strict=True))
    for part in ("query", "database", "val"):
        if len(getattr(experiment.split, part)):
            assert everything(experiment, part).auxiliary == {}
    plain = build()
    for part in ("query", "database"):
        rows = getattr(plain.split, part)
        assert np.array_equal(rows, getattr(experiment.split, part))
        own, other = (everything(e, part).image_features.pooled for e in (plain, experiment))
        assert torch.equal(own, other)
    assert "20 painted pictures of unseen classes" in experiment.split.rule


def test_val_rows_are_real_ones(painted):
    experiment = build(f"data.generated={painted}", "eval.select=val", "eval.val_size=0.5")
    assert len(experiment.split.val) == SEEN and experiment.split.val.max() < 250
    assert (experiment.split.train >= 250).sum() == 2 * UNSEEN


def test_pixels_reach_the_codes_as_features_do(painted, tmp_path):
    words = [*WORDS, f"data.generated={painted}"]
    made = {
        name: outcome(run(*words, *extra, f"output={tmp_path / name}"))
        for name, extra in {"cached": [], "raw": ["data.feature_cache=off"]}.items()
    }
    for part in ("query image", "database image"):
        assert made["cached"][part] == made["raw"][part], part


@pytest.mark.parametrize(
    ("words", "alignment", "tgi", "rows"),
    [
        ([], "to pseudo-images, in", "20 pseudo-images, in", 100),
        (["model.tgi=false"], "to pseudo-images, in", "off (model.tgi=false)", 80),
        (["data.generated=null"], "off: no pseudo-images", "none", 80),
    ],
)
def test_results_say_what_was_seen(painted, tmp_path, words, alignment, tgi, rows):
    metrics = run(*WORDS, f"data.generated={painted}", *words, f"output={tmp_path}").metrics()
    told = metrics["protocol"]
    assert told["alignment"].startswith(alignment)
    assert told["synthetic_rows_of_unseen_classes"].startswith(tgi)
    assert told["names_of_unseen_classes_used_in_training"] == (rows == 100)
    assert told["rows"]["train"] == rows
    assert metrics["zero_shot"]["seen_classes"] == list(range(SEEN))  # painted ones are unseen
    assert set(metrics["directions"]["i2i"]["map"]) == {"all", "1000", "4000", "5000"}


def test_alignment_is_a_term_only_with_pictures(painted):
    for words, there in (([f"data.generated={painted}"], True), ([], False)):
        experiment = build(*words)
        terms = TrainingModule(experiment.model, experiment.loss)(everything(experiment), _start())
        assert (terms["align"].item() > 0) == there and terms["align_text"].item() == 0


def _start():
    from models.base import Progress

    return Progress()


def test_pictures_of_unseen_classes_alone(painted, tmp_path):
    shutil.copytree(painted, tmp_path / "unseen")
    lines = (tmp_path / "unseen" / "pictures.jsonl").read_text().splitlines()
    names = build().problem.class_names[SEEN:]
    kept = [line for line in lines if any(f'"class": "{name}"' in line for name in names)]
    (tmp_path / "unseen" / "pictures.jsonl").write_text("\n".join(kept) + "\n")
    experiment = build(f"data.generated={tmp_path / 'unseen'}")
    assert experiment.inputs.auxiliary == {} and everything(experiment).auxiliary == {}
    assert set(experiment.auxiliary_sources) == {"tgi"}
    told = experiment.model.protocol_notes({"tgi": "x"})
    assert told["alignment"].startswith("off") and told["synthetic_rows_of_unseen_classes"] == "x"


def test_a_seen_class_without_pictures_is_named(painted, tmp_path):
    shutil.copytree(painted, tmp_path / "some")
    lines = (tmp_path / "some" / "pictures.jsonl").read_text().splitlines()
    (tmp_path / "some" / "pictures.jsonl").write_text("\n".join(lines[2:]) + "\n")
    with pytest.raises(UserError, match="2 of 100 train rows have no 'pseudo' input, row"):
        build(f"data.generated={tmp_path / 'some'}")


def test_features_that_were_generated_are_used_if_they_are_this_encoders(painted, tmp_path):
    shutil.copytree(painted, tmp_path / "other")
    with h5py.File(tmp_path / "other" / "features.h5", "r+") as file:
        file["pooled"][:] = 7
    words = f"data.generated={tmp_path / 'other'}"
    batch = everything(build(words))
    assert bool((batch.auxiliary["pseudo"].image_features.pooled == 7).all())
    for other in ("backbone.size=16", "data.eval_image=[squash 256 bicubic, center_crop 224]"):
        batch = everything(build(words, other))
        assert batch.auxiliary["pseudo"].image_features.pooled.unique().numel() > 100


def test_the_list_of_features_trains_as_well(painted):
    experiment = build(f"data.generated={painted / 'train_list.txt'}")
    folder = build(f"data.generated={painted}")
    ours, theirs = everything(experiment), everything(folder)
    assert torch.equal(ours.label, theirs.label)
    assert torch.equal(ours.image_features.pooled, theirs.image_features.pooled)
    unit = torch.nn.functional.normalize(theirs.auxiliary["pseudo"].image_features.pooled, dim=1)
    listed = ours.auxiliary["pseudo"].image_features.pooled
    torch.testing.assert_close(listed, unit, rtol=0, atol=1e-6)
    with pytest.raises(UserError, match="The encoder gives 768 numbers .* there are 192 in feat"):
        build(f"data.generated={painted / 'train_list.txt'}", "backbone.size=16")


def test_what_the_files_hold(painted):
    with h5py.File(painted / "features.h5") as file:
        assert file["pooled"].shape == (100, 192) and len(set(file["file"].asstr()[:])) == 100
        assert np.bincount(file["label"][:]).tolist() == [2] * 50
        assert file.attrs["backbone"] == "pixels" and len(file.attrs["class_names"]) == 50
        names = file["file"].asstr()[:].tolist()
        first = file["pooled"][:][0]
    picture = FileImages(names, painted).decode(0)
    assert len(first) == 3 * 8 * 8 and first.min() >= -1 and picture.shape == (64, 64, 3)
    rows = [line.split("\t") for line in (painted / "train_list.txt").read_text().splitlines()]
    assert len(rows) == 100 and {len(row) for row in rows} == {3}
    norms = [np.linalg.norm(np.array(row[2].split(), float)) for row in rows]
    assert np.allclose(norms, 1, atol=1e-4)


def test_words_of_pictures_are_aligned_to(painted, tmp_path):
    plugin = tmp_path / "even.py"
    plugin.write_text(
        '"""Pixels and words of one width."""\n'
        "from common.registry import BACKBONES\n"
        "from models.backbones.pixels import PixelsBackbone, PixelsConfig\n\n\n"
        '@BACKBONES.register("even_words", config=PixelsConfig)\n'
        "class EvenWords(PixelsBackbone):\n"
        '    """Words in as many bins as there are pixels."""\n'
    )
    words = [
        f"plugins=[{plugin}]", "backbone.name=even_words", "backbone.config=null",
        "backbone.text_width=192", f"data.generated={painted}", "model.caption=true",
    ]  # fmt: skip
    experiment = build(*words)
    batch = everything(experiment)
    assert batch.auxiliary["pseudo"].text_features.pooled.shape == (100, 192)
    assert experiment.model.modalities == ("image",)
    terms = TrainingModule(experiment.model, experiment.loss)(batch, _start())
    assert terms["align_text"].item() > 0
    with pytest.raises(UserError, match="pictures of 192 features to texts of 32"):
        build(f"data.generated={painted}", "model.caption=true")


def test_a_trained_blip_is_aligned_to_what_it_was_at_first(painted, tmp_path):
    from models.base import Progress
    from runners.training.optimization import Optimization
    from tests.runners.generation.tiny import write_caption_model

    write_caption_model(tmp_path / "blip")
    words = [
        "backbone.name=blip", "backbone.config=null", f"backbone.weights={tmp_path / 'blip'}",
        f"data.generated={painted}",
    ]  # fmt: skip
    kept = [word for word in WORDS if not word.startswith("backbone")]
    config = compose([*kept, *words])
    experiment = Experiment.build(config)
    batch = everything(experiment)
    assert batch.image is not None and batch.image_features is None
    pseudo = experiment.inputs.auxiliary["pseudo"].inputs
    source = pseudo.images
    rows = [np.asarray(source.decode(i)) for i in range(3)]
    order = np.searchsorted(pseudo.rows, experiment.split.train)
    target = batch.auxiliary["pseudo"].image_features.pooled
    backbone = experiment.model.backbone.eval()
    shown = _prepared(rows, backbone.image_input)
    with torch.no_grad():
        first = backbone.encode_image(shown).pooled
    for position in range(3):
        mine = int(np.flatnonzero(order == position)[0])
        torch.testing.assert_close(target[mine], first[position], rtol=1e-4, atol=1e-4)

    module = TrainingModule(experiment.model, experiment.loss).train()
    optimization = Optimization.build(config.optim, experiment.model, experiment.loss)
    optimization.set_rates(Progress())
    twin = {n: p.clone() for n, p in experiment.model.twin["backbone"].named_parameters()}
    for _ in range(2):
        module(batch, Progress()).total().backward()
        optimization.step()
    with torch.no_grad():
        assert not torch.allclose(backbone.encode_image(shown).pooled, first, atol=1e-4)
    moved = dict(experiment.model.twin["backbone"].named_parameters())
    assert any(not torch.equal(moved[name], value) for name, value in twin.items())
    assert torch.equal(everything(experiment).auxiliary["pseudo"].image_features.pooled, target)


def _prepared(pictures, image_input):
    """Return pictures as the encoder wants them, by Pillow and the definition."""
    from PIL import Image

    small = [
        Image.fromarray(p).resize((image_input.size,) * 2, Image.Resampling.BICUBIC)
        for p in pictures
    ]
    values = torch.from_numpy(np.stack([np.asarray(p) for p in small])).float() / 255
    normal = (values - torch.tensor(image_input.mean)) / torch.tensor(image_input.std)
    return normal.permute(0, 3, 1, 2)


def test_a_killed_run_goes_on_with_its_twin_and_memory(painted, tmp_path, monkeypatch):
    """Warm-up, twin and memory are where they were: the same codes as without a kill."""
    from runners import standard

    words = [*WORDS, f"data.generated={painted}", "runner.epochs=4", "loss.proxy_warmup=2"]
    whole = outcome(run(*words, f"output={tmp_path / 'whole'}"))
    real = standard.StandardRunner._checkpoint

    def dying(self):
        real(self)
        if self.state.epoch == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(standard.StandardRunner, "_checkpoint", dying)
        with pytest.raises(KeyboardInterrupt):
            run(*words, f"output={tmp_path / 'killed'}")
    again = outcome(run(*words, f"output={tmp_path / 'killed'}"))
    assert [again[p] for p in ("query image", "database image")] == [
        whole[p] for p in ("query image", "database image")
    ]


def test_a_run_with_generated_rows_encodes_new_images(painted, tmp_path):
    """Its memory has a row for each of them, so the model is rebuilt with their number."""
    folder = run(*WORDS, f"data.generated={painted}", f"output={tmp_path}")
    Image.new("RGB", (9, 9), "red").save(tmp_path / "0.png")
    codes, _ = Encoder(folder.path).encode_images(FileImages(["0.png"], tmp_path))
    assert codes.shape == (1, folder.metrics()["run"]["bits"])
