"""TensorBoard: what stands in the event files, against loops over codes, rows and pictures."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from common.code_files.run_codes import CodeSet, read_codes
from common.config.run_config import compose
from common.storage import checkpoint
from dataset.base import BadImageError
from runners.evaluation.nearest import Hit, nearest, spread
from runners.experiment import Experiment
from runners.tensorboard import run_writer
from runners.tensorboard.events import drop_events
from runners.tensorboard.retrieval_sheets import SIDE, Sheets
from runners.training.history import EpochRecord, read_history
from tests.helpers import QUICK, outcome, run
from utils.errors import UserError

DSPH = ("method=dsph", *QUICK, "runner.epochs=4", "runner.tensorboard=true")


def events_in(folder: Path) -> EventAccumulator:
    events = EventAccumulator(
        str(folder), {"scalars": 0, "images": 0, "histograms": 0, "tensors": 0}
    )
    return events.Reload()


def scalars(folder: Path, tag: str) -> dict[int, float]:
    """Return step → value, each step once."""
    values = [(event.step, event.value) for event in events_in(folder).Scalars(tag)]
    assert len(dict(values)) == len(values), f"{tag}: a step twice"
    return dict(values)


def code_set(rows: int, bits: int, seed: int, classes: int = 3, first: int = 0) -> CodeSet:
    rng = np.random.default_rng(seed)
    codes = rng.choice(np.array([-1, 1], np.int8), (rows, bits))
    labels = (rng.random((rows, classes)) < 0.4).astype(np.uint8)
    return CodeSet({"image": codes}, labels, first + np.arange(rows))


@pytest.fixture
def whole(captioned, tmp_path):
    """A run of four epochs with all that TensorBoard shows."""
    return run(*DSPH, *captioned, "eval.val_size=6", f"output={tmp_path / 'whole'}")


def test_scalars_of_every_epoch(whole):
    folder, epochs = whole.path / "tensorboard", {1, 2, 3, 4}
    tags = events_in(folder).Tags()
    assert set(tags["scalars"]) > {
        "loss/total", "loss/reg_it", "lr/head", "lr/proxies", "seconds/epoch", "map/val",
        "map/val/i2t", "map/val/t2i",
    }  # fmt: skip
    assert not any(tags[kind] for kind in ("images", "histograms", "tensors"))
    for tag in tags["scalars"]:
        assert set(scalars(folder, tag)) == epochs
    total = scalars(folder, "loss/total")
    names = [t for t in tags["scalars"] if t.startswith("loss/") and t != "loss/total"]
    terms = [scalars(folder, name) for name in names]
    mean, i2t, t2i = (scalars(folder, f"map/val{end}") for end in ("", "/i2t", "/t2i"))
    for epoch in epochs:
        assert total[epoch] == pytest.approx(sum(term[epoch] for term in terms), rel=1e-5)
        assert mean[epoch] == pytest.approx((i2t[epoch] + t2i[epoch]) / 2, rel=1e-5)
    record = read_history(whole.path)[1]
    assert total[2] == pytest.approx(record.loss["total"])
    assert scalars(folder, "lr/head")[2] == pytest.approx(record.lr["head"])
    assert i2t[2] == pytest.approx(record.measured.map["i2t"])
    assert scalars(folder, "seconds/epoch")[2] == pytest.approx(record.seconds)
    selected = whole.metrics()["protocol"]["selected"]
    assert mean[selected["epoch"]] == pytest.approx(selected["score"], rel=1e-6)


def test_the_final_codes(whole):
    folder, metrics = whole.path / "tensorboard" / "codes", whole.metrics()
    _, database, _ = read_codes(whole.codes_file)
    events = events_in(folder)
    step = metrics["protocol"]["selected"]["epoch"]
    for direction, report in metrics["directions"].items():
        curve = report["pr_rank"]
        for name in ("precision", "recall"):
            values = scalars(folder, f"final/{name}_by_rank/{direction}")
            assert list(values) == curve["rank"]
            assert list(values.values()) == pytest.approx(curve[name])
        (event,) = events.Tensors(f"final/pr_radius/{direction}")
        values = np.array(event.tensor_proto.float_val).reshape(6, 17)
        assert event.step == step
        assert values[4, ::-1] == pytest.approx(report["pr_radius"]["precision"])
        assert values[5, ::-1] == pytest.approx(report["pr_radius"]["recall"])
    for modality, codes in database.codes.items():
        (event,) = events.Histograms(f"final/bit_mean/{modality}")
        means = codes.mean(0)
        histogram = event.histogram_value
        assert (event.step, histogram.num) == (step, 16)
        assert (histogram.min, histogram.max, histogram.sum) == pytest.approx(
            (means.min(), means.max(), means.sum())
        )
        (event,) = events.Histograms(f"final/bit_correlation/{modality}")
        assert event.histogram_value.num == 16 * 15 / 2
        (event,) = events.Histograms(f"final/output/{modality}")
        assert event.histogram_value.num == 16 * len(codes)  # few rows: all of them
        assert sum(event.histogram_value.bucket) == 16 * len(codes)


def test_settings_and_figures_to_compare_runs_by(whole):
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    folder = whole.path / "tensorboard" / "final"
    events, metrics = events_in(folder), whole.metrics()
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    hparams = HParamsPluginData.FromString(content).session_start_info.hparams
    assert hparams["method"].string_value == "dsph" and hparams["bits"].number_value == 16
    assert hparams["optim.lr"].number_value == 1e-3
    assert not {"output", "runner.pictures", "runner.device"} & set(hparams)
    assert "_hparams_/experiment" not in events.Tags()["tensors"]
    step = metrics["protocol"]["selected"]["epoch"]
    for direction, report in metrics["directions"].items():
        (event,) = events.Scalars(f"final/map@all/{direction}")
        assert event.step == step
        assert event.value == pytest.approx(report["map"]["all"]["expected"])
    assert events.Scalars("final/train_s")[0].value > 0


def test_what_validation_rows_retrieve(whole, captioned, tmp_path):
    events = events_in(whole.path / "tensorboard" / "codes")
    assert set(events.Tags()["images"]) == {"retrieved/val/i2t", "retrieved/val/t2i"}
    (event,) = events.Images("retrieved/val/i2t")  # of so short a run the last epoch only
    with Image.open(io.BytesIO(event.encoded_image_string)) as sheet:
        assert (event.step, sheet.size) == (4, (event.width, event.height))
    (tensor,) = events.Tensors("pr_radius/val/t2i")
    values = np.array(tensor.tensor_proto.float_val).reshape(6, 17)
    assert values[:4].sum(0).tolist() == [6 * whole.metrics()["protocol"]["rows"]["train"]] * 17
    words = [*DSPH, *captioned, f"output={tmp_path / 'other'}", "eval.val_size=6"]
    for more in ("runner.pictures=0", "eval.select=query", "eval.select=last"):
        folder = run(*words, more).path
        assert events_in(folder / "tensorboard" / "codes").Tags()["images"] == []


def test_it_changes_no_number_and_can_be_switched_off(whole, captioned, tmp_path):
    words = [*DSPH, *captioned, "eval.val_size=6", f"output={tmp_path / 'off'}"]
    off = run(*words, "runner.tensorboard=false")
    assert not (off.path / "tensorboard").exists()
    assert outcome(off) == outcome(whole)
    assert compose([*words, "runner.pictures=9"]).run_name == whole.path.name
    with pytest.raises(UserError, match=r"runner\.pictures=-1 is not accepted; give a number"):
        run(*words, "runner.pictures=-1")


@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_run_writes_no_epoch_twice(stop, whole, captioned, tmp_path, monkeypatch):
    words = [*DSPH, *captioned, "eval.val_size=6", f"output={tmp_path / 'torn'}"]
    save = checkpoint.save

    def stopping(folder, modules, optimizers=(), rng=None, state=None):
        if state and state.get("epoch") == stop + 1:
            raise KeyboardInterrupt  # this epoch is written, but has no checkpoint
        save(folder, modules, optimizers, rng, state)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint, "save", stopping)
        run(*words)
    resumed = run(*words).path / "tensorboard"
    for tag in events_in(whole.path / "tensorboard").Tags()["scalars"]:
        values = scalars(resumed, tag)
        assert list(values) == [1, 2, 3, 4]
        if tag != "seconds/epoch":
            assert values == scalars(whole.path / "tensorboard", tag)


def test_results_that_are_written_again_replace_the_old_ones(whole):
    config = compose([], whole.config_file)
    folder = whole.path / "tensorboard"
    before = events_in(folder / "codes").Tags()
    run_writer.draw_results(folder, Experiment.build(config), whole)
    after = events_in(folder / "codes")
    assert {k: set(v) for k, v in after.Tags().items() if isinstance(v, list)} == {
        k: set(v) for k, v in before.items() if isinstance(v, list)
    }
    assert len(after.Tensors("final/pr_radius/i2t")) == 1
    assert len(scalars(folder / "final", "final/map@all/i2t")) == 1
    scalars(folder / "codes", "final/recall_by_rank/t2i")


# ---- the parts


@pytest.mark.parametrize("bits", [1, 5, 48])
def test_curve_by_radius_counts_pairs(bits):
    query, database = code_set(7, bits, 0), code_set(20, bits, 1)
    query.labels[0] = 0  # no relevant row
    for policy in ("zero", "skip"):
        counts = np.zeros((4, bits + 1))
        for q, n, radius in itertools.product(range(7), range(20), range(bits + 1)):
            relevant = database.labels @ query.labels[q] > 0
            if policy == "skip" and not relevant.any():
                continue
            near = (query.codes["image"][q] != database.codes["image"][n]).sum() <= radius
            counts[[[2, 3], [1, 0]][int(near)][int(relevant[n])], bits - radius] += 1
        curve = run_writer.pr_by_radius(query, database, "i2i", no_relevant=policy)
        right, wrong, _, missed = counts
        assert np.array_equal(curve[:4], counts)
        assert curve[4] == pytest.approx(right / np.maximum(right + wrong, 1))
        assert curve[5] == pytest.approx(right / (right + missed))


def test_moments_of_bits(monkeypatch):
    monkeypatch.setattr(run_writer, "_PIECE", 7)
    codes = code_set(40, 6, 3).codes["image"]
    codes[:, 2], codes[:, 4] = 1, -codes[:, 0]
    mean, correlation = run_writer.bit_moments(codes)
    assert mean == pytest.approx(codes.mean(0))
    expected = [
        0.0 if 2 in (i, j) else np.corrcoef(codes[:, i], codes[:, j])[0, 1]
        for i, j in itertools.combinations(range(6), 2)
    ]
    assert correlation == pytest.approx(expected)
    assert correlation[3] == pytest.approx(-1)
    assert len(run_writer.bit_moments(codes[:, :1])[1]) == 0


def test_rows_whose_outputs_are_written():
    for rows, count in ((0, 0), (1, 1), (64, 64), (5000, 64), (20_001, 201), (10**6, 1024)):
        sampled = run_writer.sampled_rows(rows)
        assert len(sampled) == len(set(sampled.tolist())) == count
        assert rows == 0 or (sampled.min() == 0 and sampled.max() == (rows - 1 if rows > 1 else 0))


def test_nearest_rows():
    query, database = code_set(5, 8, 0), code_set(30, 8, 1, first=100)
    chosen = [4, 1]
    nearest_rows = nearest(query, database, chosen, direction="i2i", top=10)
    for q, hits in zip(chosen, nearest_rows, strict=True):
        distances = (database.codes["image"] != query.codes["image"][q]).sum(1)
        order = sorted(range(30), key=lambda n, d=distances: (d[n], n))[:10]
        assert [hit.row for hit in hits] == [100 + n for n in order]
        assert [hit.distance for hit in hits] == [distances[n] for n in order]
        relevant = [bool((database.labels[n] & query.labels[q]).any()) for n in order]
        assert [hit.right for hit in hits] == relevant
    assert nearest(query, database, [], direction="i2i", top=3) == []


def test_queries_to_show_are_of_different_classes():
    labels = np.eye(3, dtype=np.uint8)[[0] * 20 + [1, 2]]
    query = CodeSet({}, labels, np.arange(22))
    assert sorted(labels[spread(query, 3)].argmax(1).tolist()) == [0, 1, 2]
    assert spread(query, 3) == spread(query, 3)
    assert len(set(spread(query, 10))) == 10 and len(spread(query, 99)) == 22
    assert spread(query, 0) == []


class Pictures:
    """Three pictures of one colour each, the last of which is broken."""

    def decode(self, row):
        if row == 2:
            raise BadImageError("broken")
        return np.full((40, 20, 3), (200, 50)[row], np.uint8)


class Shown:
    images = Pictures()
    labels = np.eye(3, dtype=np.float32)
    class_names = ("ant", "bee", "a cow with a very long name indeed")
    texts = [("a dog",), ("word " * 99,), ("",)]


@pytest.mark.parametrize("direction", ["i2t", "t2i"])
def test_a_sheet(direction):
    hits = [Hit(0, 0, True), Hit(1, 3, False), Hit(2, 8, False)]
    sheet = Sheets(Shown()).draw(direction, [(0, hits), (2, hits[:1])])
    pixels = np.asarray(sheet)
    step = SIDE + 12
    x, y = 18 + step, 6  # of the first hit's frame
    edge = pixels[y + 1, x : x + SIDE + 6]
    assert (edge == (0, 115, 90)).all()  # plain
    edge = pixels[y + 1, x + step : x + step + SIDE + 6]
    share = (edge == (181, 71, 8)).all(1).mean()
    assert 0.5 < share < 0.8  # broken
    middle = pixels[y + 3 + SIDE // 2, x + 3 + SIDE // 2 : x + 3 + SIDE // 2 + 1][0]
    if direction == "t2i":
        assert (middle == 200).all()
        assert (pixels[y + 3 + SIDE // 2, x + 2 * step + 3] == 0xDD).all()  # broken: grey
    assert sheet.width == 18 + 4 * step and pixels[-1].min() == 255


def test_drawing_takes_a_small_share_of_the_time(captioned, tmp_path, monkeypatch):
    words = [*DSPH, *captioned, "eval.val_size=6", f"output={tmp_path}"]
    experiment = Experiment.build(compose(words))
    now, drawn = [0.0], []
    events = SummaryWriter(str(tmp_path / "events"))
    monkeypatch.setattr(run_writer.time, "perf_counter", lambda: now[0])
    tensorboard = run_writer.TensorBoardWriter(events, experiment, epoch=0, epochs=100)

    def draw(epoch, codes):
        drawn.append(epoch)
        now[0] += 1.0

    monkeypatch.setattr(tensorboard, "_draw", draw)
    for epoch in range(1, 101):
        now[0] += 4.0
        tensorboard.draw_codes(
            epoch, run_writer.EpochCodes("val", "train", (), code_set(1, 4, 0), code_set(1, 4, 0))
        )
    tensorboard.close()
    # the first is expected to take half a second, 1 % of 50 s; it takes 1 s, so a second one has
    # to wait for 200 s, a third for 300 s; the last one is made in any case
    assert drawn == [13, 50, 75, 100]


def test_without_a_writer_nothing_is_written(captioned, tmp_path, monkeypatch):
    experiment = Experiment.build(compose([*DSPH, *captioned, f"output={tmp_path}"]))
    nothing = run_writer.TensorBoardWriter(
        None, experiment, epoch=0, epochs=1, pictures=4
    )  # not the main process
    monkeypatch.setattr(nothing, "_draw", lambda *_: pytest.fail("drawn"))
    nothing.write_epoch(EpochRecord(1, {"total": 1.0}, {}, 1.0))
    nothing.draw_codes(
        1, run_writer.EpochCodes("val", "train", (), code_set(1, 4, 0), code_set(1, 4, 0))
    )
    nothing.close()
    assert not list(tmp_path.iterdir())


def test_events_are_taken_out_of_files(tmp_path):
    with SummaryWriter(str(tmp_path)) as writer:
        for step in (1, 2, 3):
            writer.add_scalar("loss/total", step / 2, step)
            writer.add_scalar("stage/centers/min", step, step)
            writer.add_scalars("pair", {"one": 1.0}, step)
    (tmp_path / "other.txt").write_text("no events")
    (file,) = tmp_path.glob("events*")
    with open(file, "ab") as stream:
        stream.write(b"torn")
    drop_events(tmp_path, lambda tag, step: step > 3)
    assert file.read_bytes().endswith(b"torn")  # nothing to take out: left as it is
    drop_events(tmp_path, lambda tag, step: step > 1 and tag.startswith("loss/"))
    assert scalars(tmp_path, "loss/total") == {1: 0.5}
    assert set(scalars(tmp_path, "stage/centers/min")) == {1, 2, 3}
    (tmp_path / "events.out.tfevents.9").write_bytes(b"not events at all")
    drop_events(tmp_path, lambda tag, step: True)
    assert not events_in(tmp_path).Tags()["scalars"]
    drop_events(tmp_path / "gone", lambda tag, step: True)


def test_final_figures_of_a_zero_shot_run():
    band = {"expected": 0.5, "worst": 0.4, "best": 0.6}
    metrics = {
        "directions": {"i2i": {"map": {"all": band, "5": {**band, "expected": 0.7}}}},
        "zero_shot": {"directions": {"i2i": {
            "all_classes": {"all": band},
            "generalised": {"unseen": {"all": band}, "seen": {"all": band},
                            "harmonic": {"all": 0.25}},
        }}},
        "timing": {"train_s": 3.0},
    }  # fmt: skip
    assert run_writer.final_figures(metrics) == {
        "final/map@all/i2i": 0.5, "final/map@5/i2i": 0.7, "final/map@all/mean": 0.5,
        "final/zero_shot/all_classes/i2i": 0.5, "final/zero_shot/harmonic/i2i": 0.25,
        "final/train_s": 3.0,
    }  # fmt: skip
