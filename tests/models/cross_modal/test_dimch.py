"""DIMCH's head and loss against the equations; what is refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from common.batch import Batch, Features
from models.backbones.base import CachedBackbone
from models.base import Outputs, Problem, Progress
from models.cross_modal.dimch import DIMCH, DIMCHLoss, DIMCHLossConfig, DIMCHModelConfig
from utils.errors import UserError

WIDTH, COUNTS = 8, {"image": 3, "text": 5}


def model_of(bits=6, **keys):
    torch.manual_seed(0)
    widths = dict.fromkeys(COUNTS, WIDTH)
    backbone = CachedBackbone(widths, widths, "toy")
    backbone.token_counts = COUNTS
    return DIMCH(DIMCHModelConfig(**keys), Problem(bits, 4), backbone)


def batch_of(rows, words=5, seed=1):
    generator = torch.Generator().manual_seed(seed)
    features = {
        name: Features(
            torch.randn(rows, WIDTH, generator=generator),
            torch.randn(rows, count, WIDTH, generator=generator),
        )
        for name, count in {"image": 3, "text": words}.items()
    }
    return Batch(
        label=torch.eye(4)[torch.arange(rows) % 4], index=torch.arange(rows),
        image_features=features["image"], text_features=features["text"],
    )  # fmt: skip


def outputs_of(rows, size, bits, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    outputs = Outputs()
    for modality in COUNTS:
        sets = torch.randn(rows, size, bits, generator=generator, dtype=dtype)
        outputs[f"{modality}_instances"] = sets
        outputs[f"{modality}_code"] = sets.mean(1).tanh()
    return outputs


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 6])  # also as many rows as tokens of either kind
def test_the_head_is_that_of_the_equations(rows):
    model, batch = model_of(set_size=2).eval(), batch_of(rows)
    for modality in COUNTS:
        features = batch.features(modality)
        tokens = features.tokens
        if modality == "image":
            tokens = torch.cat([features.pooled[:, None], tokens], 1)
        head = model.heads[modality]
        padded = F.pad(tokens, (1, 1))
        mixed = head.conv.bias[None, :, None] + sum(
            torch.einsum("mt,btd->bmd", head.conv.weight[:, :, n], padded[:, :, n : n + WIDTH])
            for n in range(3)
        )
        hidden = (mixed.relu() @ head.mlp[0].weight.T + head.mlp[0].bias).relu()
        instances = hidden @ head.mlp[3].weight.T + head.mlp[3].bias
        torch.testing.assert_close(model.instances(batch, modality), instances)
        torch.testing.assert_close(model.encode(batch, modality), instances.mean(1).tanh())
    assert model.instances(batch, "image").shape == (rows, 2, 6)


def test_initialisation():
    head = model_of(bits=4096, set_size=512).heads["text"]
    assert all(bool((layer.bias == 0).all()) for layer in (head.conv, head.mlp[0], head.mlp[3]))
    conv, last = head.conv.weight.detach(), head.mlp[3].weight.detach()
    assert float(conv.std()) == pytest.approx((2 / 15) ** 0.5, rel=0.05)
    assert last.shape == (4096, 4)
    assert float(last.abs().max()) == pytest.approx((6 / 4096) ** 0.5, rel=0.01)


@pytest.mark.parametrize("form", ["flattened", "per_set"])
@pytest.mark.parametrize(("rows", "size", "bits"), [(6, 3, 8), (1, 2, 1), (3, 1, 5)])
def test_the_terms_are_those_of_the_equations(rows, size, bits, form):
    outputs = outputs_of(rows, size, bits)
    label = torch.eye(3, dtype=torch.float64)[torch.arange(rows) % 3]
    label[0, 1] = 1
    batch = Batch(label=label, index=torch.arange(rows))
    terms = DIMCHLoss(DIMCHLossConfig(diversity=form))(outputs, batch, Progress())
    code = outputs.image_code
    assert float(terms.quan_image) == pytest.approx(float((code - code.sign()).pow(2).mean() / 2))
    image, text = (F.normalize(outputs[f"{m}_instances"], dim=2).flatten(0, 1) for m in COUNTS)
    kernels = [(-0.5 * torch.cdist(a, b)).exp().mean()
               for a, b in ((image, image), (image, text), (text, text))]  # fmt: skip
    expected = float(kernels[0] - 2 * kernels[1] + kernels[2])
    assert float(terms.mmd) == pytest.approx(expected, abs=1e-7)
    assert set(terms) == {
        "token_i2t", "hash_i2t", "token_t2i", "hash_t2i", "mmd",
        "div_image", "quan_image", "div_text", "quan_text",
    }  # fmt: skip


def test_swapping_the_modalities_swaps_the_directions():
    outputs = outputs_of(8, 3, 6)
    swapped = Outputs(
        **{f"{a}_{o}": outputs[f"{b}_{o}"] for a, b in (("image", "text"), ("text", "image"))
           for o in ("instances", "code")}
    )  # fmt: skip
    batch = Batch(label=torch.eye(4)[torch.arange(8) % 4].double(), index=torch.arange(8))
    loss = DIMCHLoss(DIMCHLossConfig())
    ours, theirs = loss(outputs, batch, Progress()), loss(swapped, batch, Progress())
    for name in ("token", "hash"):
        torch.testing.assert_close(ours[f"{name}_i2t"], theirs[f"{name}_t2i"])
    torch.testing.assert_close(ours.div_image, theirs.div_text)
    torch.testing.assert_close(ours.mmd, theirs.mmd)


def test_the_flattened_diversity_grows_with_the_batch_and_that_of_sets_does_not():
    batch = Batch(label=torch.ones(12, 1), index=torch.arange(12))
    values = {}
    for form in ("flattened", "per_set"):
        loss = DIMCHLoss(DIMCHLossConfig(diversity=form, uniformity_t=0.1))
        once = outputs_of(6, 4, 8)
        twice = Outputs(**{name: torch.cat([value, value]) for name, value in once.items()})
        six = Batch(label=batch.label[:6], index=batch.index[:6])
        values[form] = [float(loss(once, six, Progress()).div_image),
                        float(loss(twice, batch, Progress()).div_image)]  # fmt: skip
    assert values["per_set"][0] == pytest.approx(values["per_set"][1])
    assert values["flattened"][1] > 3.5 * values["flattened"][0]


def test_what_does_not_fit_is_refused_in_a_sentence():
    with pytest.raises(UserError, match="set_size=0 has to be at least 1"):
        model_of(set_size=0)
    with pytest.raises(UserError, match="built for rows of 5 tokens, these have 4"):
        model_of().encode(batch_of(2, words=4), "text")
    widths = dict.fromkeys(COUNTS, WIDTH)
    with pytest.raises(UserError, match="does not tell how many"):
        DIMCH(DIMCHModelConfig(), Problem(8, 4), CachedBackbone(widths, widths, "toy"))
