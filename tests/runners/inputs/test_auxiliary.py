"""Generated captions and painted pictures on their way from a folder to codes and metrics."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from common.config.run_config import compose
from runners.experiment import Experiment
from tests.helpers import QUICK, outcome, picture, run
from utils.errors import UserError

PLUGIN = '''
"""Raw pixels and hashed words, padded with zeros to one width."""

import torch.nn.functional as F

from common.registry import BACKBONES
from models.backbones.pixels import PixelsBackbone, PixelsConfig

WIDTH = 192  # of a picture of 8 px


@BACKBONES.register("even_pixels", config=PixelsConfig)
class EvenPixels(PixelsBackbone):
    """One width for all."""

    def __init__(self, config, modalities):
        super().__init__(config, modalities)
        self.widths = self.token_widths = {m: WIDTH for m in modalities}

    def encode_image(self, image, tokens=False):
        return self.even(super().encode_image(image, tokens))

    def encode_text(self, text, mask, tokens=False):
        return self.even(super().encode_text(text, mask, tokens))

    def even(self, features):
        pad = [None if t is None else F.pad(t, (0, WIDTH - t.shape[-1])) for t in features[:2]]
        return features._replace(pooled=pad[0], tokens=pad[1])
'''


@pytest.fixture
def words(captioned, toy_root):
    """Return words that train VTPH on the toy pictures."""
    plugin = toy_root / "even_pixels.py"
    plugin.write_text(PLUGIN)
    kept = [word for word in captioned if not word.startswith("backbone")]
    return [
        *kept, f"plugins=[{plugin}]", "method=vtph", "backbone.name=even_pixels",
        "backbone.config=null", "backbone.size=8", "backbone.text_width=32", "backbone.max_words=6",
        "dataset.split.rule=permutation", "dataset.split.query=9", *QUICK, "runner.epochs=1",
        "model.prompt_layers=1", "model.transformer_layers=1", "eval.select=last",
    ]  # fmt: skip


def queries(words):
    return build(words).dataset.split.query.tolist()


def build(words):
    return Experiment.build(compose(words))


def write_generated(folder, rows, n_rows=48):
    """Write captions of all rows, and for the rows given a picture and its caption."""
    rng = np.random.default_rng(7)
    (folder / "query_images").mkdir(parents=True)
    with open(folder / "captions.jsonl", "w") as stream:
        for row in range(n_rows):
            stream.write(json.dumps({"row": row, "text": f"seen {row}"}) + "\n")
    with open(folder / "query_captions.jsonl", "w") as stream:
        for row in rows:
            stream.write(json.dumps({"row": row, "text": f"painted {row}"}) + "\n")
            Image.fromarray(picture(rng, [row % 3], 16)).save(folder / f"query_images/{row}.png")
    return folder


def test_without_generated_data_the_fallback_is_stated(words, tmp_path):
    metrics = run(*words, f"output={tmp_path}").metrics()
    assert set(metrics["directions"]) == {"i2t", "t2i"}
    told = metrics["protocol"]
    assert told["other_inputs"] == {"second": "each row's own first caption; none were generated"}
    assert told["text_codes"] == {"database": "own picture and second caption", "query": "alone"}


def test_generated_data_reach_the_codes(words, tmp_path):
    asked = queries(words)
    words = [*words, f"data.generated={write_generated(tmp_path / 'made', asked)}"]
    results = {
        name: outcome(run(*words, *extra, f"output={tmp_path / name}"))
        for name, extra in {
            "cached": [], "raw": ["data.feature_cache=off"], "alone": ["model.db_text=text_only"],
        }.items()
    }  # fmt: skip
    told = results["cached"]["metrics"]["protocol"]
    assert told["other_inputs"]["virtual"].startswith("painted pictures, in")
    assert told["text_codes"]["query"] == "painted picture and its caption"
    # the encoder is frozen either way: what is read does not depend on where it is computed
    for part in ("query image", "query text", "database image", "database text"):
        assert results["raw"][part] == results["cached"][part], part
    # training does not look at db_text, so only the database's texts differ
    differing = [
        part for part in results["cached"]
        if part != "metrics" and results["alone"][part] != results["cached"][part]
    ]  # fmt: skip
    assert differing == ["database text"]


def test_who_is_given_what(words, tmp_path):
    asked = queries(words)
    made = write_generated(tmp_path / "made", asked)
    experiment = build([*words, f"data.generated={made}", "eval.select=val"])
    found = {part: set(experiment.view(part)[0].auxiliary) for part in ("train", "database")}
    assert found == {"train": {"second"}, "database": {"second"}}
    assert set(experiment.view("query")[0].auxiliary) == {"virtual"}
    assert set(experiment.view("val")[0].auxiliary) == set()  # asks, and nothing is painted for it
    virtual = experiment.view("query").__getitems__([4, 2]).auxiliary["virtual"]
    backbone = experiment.inputs.auxiliary["virtual"].inputs
    assert [backbone.texts[backbone.rows.tolist().index(asked[i])] for i in (4, 2)] == [
        f"painted {asked[i]}" for i in (4, 2)
    ]
    assert virtual.image_features.tokens.shape == (2, 16, 192)
    assert virtual.index.tolist() == [4, 2]


def test_a_method_that_reads_none_is_given_none(words, captioned, tmp_path):
    made = write_generated(tmp_path / "made", queries(words))
    experiment = build([*captioned, "method=dsph", f"data.generated={made}"])
    assert experiment.inputs.auxiliary == {} and experiment.view("train")[0].auxiliary == {}


def test_a_query_without_its_picture_is_named(words, tmp_path):
    asked = queries(words)
    made = write_generated(tmp_path / "made", asked[1:])
    with pytest.raises(
        UserError, match=f"1 of 9 query rows have no 'virtual' input, row {asked[0]}"
    ):
        build([*words, f"data.generated={made}"])


def test_captions_are_shuffled_in_training_alone(words):
    calm, noisy = build(words), build([*words, "data.caption_noise=0.5"])
    rows = range(len(calm.split.train))

    def texts(experiment, part, **how):
        batch = experiment.view(part, **how).__getitems__(rows)
        return batch.text_features.pooled, batch.auxiliary["second"].text_features.pooled

    for part, how, same in (("train", {"train": True}, False), ("train", {}, True)):
        (own, second), (other, second_too) = texts(calm, part, **how), texts(noisy, part, **how)
        assert bool((own == other).all()) == same
        assert bool((second == second_too).all())
    again = build([*words, "data.caption_noise=0.5"])
    assert (texts(noisy, "train", train=True)[0] == texts(again, "train", train=True)[0]).all()


@pytest.mark.parametrize("share", ["1.5", "-0.1"])
def test_a_share_is_needed(share):
    with pytest.raises(UserError, match="a share of the training rows, 0 to 1, is needed"):
        compose(["method=vtph", f"data.caption_noise={share}"])
