"""PZSH's terms, centres, memory and twin against loops written from the equations."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from common.batch import Batch, Features
from models.backbones.base import CachedBackbone
from models.backbones.towers import TowerBackbone
from models.base import Outputs, Progress
from models.zero_shot.pzsh import (
    CENTER_DRAWS,
    PSEUDO,
    PZSH,
    TGI,
    PZSHConfig,
    PZSHLoss,
    PZSHLossConfig,
    class_contrast,
    random_centers,
)
from tests.models.toys import CLASSES, ROWS, WIDTH, make_model, take, toy_batch, toy_problem
from utils.errors import UserError

BITS, EPS = 12, 1e-6


def random(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def related(a, b):
    return any(x > 0 and y > 0 for x, y in zip(a, b, strict=True))


def contrast_by_loop(rows, targets, label, temperature):
    """Return the alignment of lists of rows; a target of zeros is none."""
    there = [i for i, t in enumerate(targets) if any(t)]
    total = 0.0
    for i in there:
        logits = {j: cosine(rows[i], targets[j]) / temperature for j in there}
        whole = math.log(sum(math.exp(v) for v in logits.values()))
        mates = [j for j in there if j != i and related(label[i], label[j])]
        for j in mates:
            total -= (logits[j] - whole) / (len(mates) + EPS)
    return total / max(len(there), 1)


def labels(multi=True):
    label = toy_batch(multi).label
    label[3] = 0
    return label


@pytest.mark.parametrize("missing", [(), (0, 5, 7), tuple(range(1, ROWS)), tuple(range(ROWS))])
def test_alignment_against_a_loop(missing):
    rows, targets, label = random(ROWS, 6), random(ROWS, 6, seed=2), labels()
    targets[list(missing)] = 0
    rows.requires_grad_()
    value = class_contrast(rows, targets, label, 0.3)
    expected = contrast_by_loop(rows.tolist(), targets.tolist(), label.tolist(), 0.3)
    assert value.item() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    value.backward()
    assert bool(rows.grad.isfinite().all())


def test_a_row_is_not_drawn_to_its_own_target():
    one = random(1, 6)
    assert class_contrast(one, one, torch.ones(1, 2), 0.1).item() == 0
    apart = torch.eye(3)
    assert class_contrast(random(3, 6), random(3, 6), apart, 0.1).item() == 0
    assert class_contrast(random(3, 6), random(3, 6), apart, 0.1, with_self=True).item() > 0


def step(loss, batch, epoch=0, targets=None):
    """Return codes and terms of one batch."""
    rows = len(batch)
    code = random(rows, BITS, seed=3).tanh()
    nothing = torch.zeros(rows, 6)
    outputs = Outputs(
        image_code=code,
        image_momentum=random(rows, BITS, seed=4).tanh(),
        image_aligned=random(rows, 6, seed=5),
        pseudo_feature=nothing if targets is None else targets,
        caption_feature=nothing,
    )
    return code, outputs, loss(outputs, batch, Progress(epoch=epoch))


def test_hash_terms_against_a_loop():
    keys = {"alpha": 0.3, "beta": 0.6, "lambda_quant": 0.2, "proxy_warmup": 2}
    loss = PZSHLoss(PZSHLossConfig(**keys), toy_problem(BITS, True))
    batch = take(toy_batch(True), list(range(4, 12)))
    batch.label[2] = 0
    code, outputs, terms = step(loss, batch, epoch=2)
    center = quant = 0.0
    for h, y in zip(code.tolist(), batch.label.tolist(), strict=True):
        logits = [math.sqrt(BITS) * cosine(h, c) for c in loss.centers.tolist()]
        whole = sum(math.exp(v) for v in logits)
        for v, given in zip(logits, y, strict=True):
            p = min(max(math.exp(v) / whole, EPS), 1 - EPS)
            center -= (math.log(p) if given else math.log(1 - p)) / (8 * CLASSES)
        quant += sum((abs(v) - 1) ** 2 for v in h) / (8 * BITS)
    total, pairs = 0.0, 0
    memory = list(
        zip(outputs.image_momentum.tolist(), batch.label.tolist(), strict=True)
    )  # other rows are not visited yet
    for (h, y), (m, z) in itertools.product(
        zip(code.tolist(), batch.label.tolist(), strict=True), memory
    ):
        if related(y, z):
            total, pairs = total + math.log(1 + math.exp((1 - cosine(h, m)) / 2)), pairs + 1
    assert terms.center.item() == pytest.approx(0.3 * center, rel=1e-5)
    assert terms.quant.item() == pytest.approx(0.3 * 0.2 * quant, rel=1e-5)
    assert terms.proxy.item() == pytest.approx(0.3 * 0.6 * total / (pairs + EPS), rel=1e-5)
    assert terms.align.item() == terms.align_text.item() == 0


def test_memory_and_warm_up():
    loss = PZSHLoss(PZSHLossConfig(proxy_warmup=2), toy_problem(BITS))
    untouched = loss.memory.rows.clone()
    batch = take(toy_batch(), [7, 2, 11])
    _, outputs, terms = step(loss, batch, epoch=1)
    assert terms.proxy.item() == 0
    assert torch.equal(loss.memory.rows[[7, 2, 11]], outputs.image_momentum)  # from epoch 0
    assert torch.equal(loss.memory_label[[7, 2, 11]], batch.label)
    rest = [i for i in range(ROWS) if i not in (7, 2, 11)]
    assert (
        torch.equal(loss.memory.rows[rest], untouched[rest]) and not loss.memory_label[rest].any()
    )
    assert step(loss, batch, epoch=2)[2].proxy.item() > 0


def test_switches_of_the_loss():
    targets, batch = random(ROWS, 6, seed=8), toy_batch()
    problem = toy_problem(BITS)
    on = step(PZSHLoss(PZSHLossConfig(), problem), batch, 10, targets)[2]
    for key, term in (("lambda_align", "align"), ("beta", "proxy"), ("lambda_quant", "quant")):
        off = step(PZSHLoss(PZSHLossConfig(**{key: 0.0}), problem), batch, 10, targets)[2]
        assert on[term].item() > 0 and off[term].item() == 0
        assert on.keys() == off.keys()
    with pytest.raises(UserError, match="loss.temperature=0 has to be above 0"):
        PZSHLossConfig(temperature=0)


def test_centers_without_a_seed_follow_the_run():
    kinds = [(42, 0), (42, 1), (None, 0), (None, 1), (None, 0)]
    drawn = [
        PZSHLoss(PZSHLossConfig(center_seed=seed), toy_problem(BITS, seed=run)).centers
        for seed, run in kinds
    ]
    assert torch.equal(drawn[0], drawn[1]) and torch.equal(drawn[2], drawn[4])
    assert not torch.equal(drawn[2], drawn[3]) and not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize(("classes", "bits"), [(50, 24), (40, 20), (5, 7), (1, 16), (3, 1)])
def test_centers(classes, bits):
    centers = random_centers(classes, bits, 42)
    assert centers.shape == (classes, bits) and set(centers.unique().tolist()) <= {-1.0, 1.0}
    assert ((centers < 0).sum(1) == bits // 2).all()
    assert torch.equal(centers, random_centers(classes, bits, 42))
    # the rule, restated: the first draw that keeps its distance, else the last
    generator, kept = np.random.default_rng(42), None
    for _ in range(CENTER_DRAWS):
        kept = [set(generator.choice(bits, bits // 2, replace=False)) for _ in range(classes)]
        apart = [len(a ^ b) for a, b in itertools.combinations(kept, 2)] or [bits]
        if min(apart) > bits // 4 and sum(apart) / len(apart) >= bits / 2:
            break
    assert [{int(k) for k in np.flatnonzero(row < 0)} for row in centers.numpy()] == kept


class Towers(TowerBackbone):
    """Two small linear towers that can be trained and frozen."""

    def __init__(self, freeze="none", text_width=WIDTH):
        super().__init__(nn.Linear(8, WIDTH), nn.Linear(8, text_width), freeze)
        self.widths = {"image": WIDTH, "text": text_width}

    def encode_image(self, image, tokens=False):
        return Features(self.visual(image))

    def encode_text(self, text, mask, tokens=False):
        return Features(self.text(nn.functional.one_hot(text, 8).float().mean(1)))


def raw_batch(pseudo=True):
    batch = Batch(toy_batch().label, torch.arange(ROWS), image=random(ROWS, 8))
    if not pseudo:
        return batch
    other = Batch(
        batch.label, batch.index, image_features=Features(random(ROWS, WIDTH, seed=6)),
        text=torch.arange(ROWS)[:, None] % 8, text_mask=torch.zeros(ROWS, 1, dtype=torch.bool),
    )  # fmt: skip
    return dataclasses.replace(batch, auxiliary={PSEUDO: other})


def build(backbone, **keys):
    torch.manual_seed(0)
    return PZSH(PZSHConfig(hidden=16, **keys), toy_problem(BITS), backbone)


def test_the_twin_follows_step_by_step():
    model, batch = build(Towers()).train(), raw_batch()
    assert all(not p.requires_grad for p in model.twin.parameters())
    expected = {n: p.clone() for n, p in model.twin.named_parameters()}
    assert {n.split(".")[0] for n in expected} == {"backbone", "head"}
    assert not any(n.startswith("backbone.text") for n in expected)
    for _ in range(3):
        with torch.no_grad():
            for parameter in (*model.backbone.parameters(), *model.head.parameters()):
                parameter.add_(0.1 * torch.randn(parameter.shape))
        outputs = model(batch)
        own = dict(model.named_parameters())
        expected = {n: 0.9 * v + 0.1 * own[n] for n, v in expected.items()}
        for name, value in model.twin.named_parameters():
            torch.testing.assert_close(value, expected[name])
        again = model.momentum_code(batch, model.backbone(batch, "image").pooled)
        torch.testing.assert_close(outputs.image_momentum, again)
        assert not outputs.image_momentum.requires_grad
    before = copy.deepcopy(model.twin.state_dict())
    model.eval()(batch)
    model.encode(batch, "image")
    assert all(torch.equal(v, before[n]) for n, v in model.twin.state_dict().items())


def test_a_twin_that_moves_with_every_batch():
    model, batch = build(Towers(), twin_moves="always").eval(), raw_batch()
    with torch.no_grad():
        model.head[0].weight.add_(1)
    before = model.twin["head"][0].weight.clone()
    model.encode(batch, "image")
    wanted = 0.9 * before + 0.1 * model.head[0].weight
    torch.testing.assert_close(model.twin["head"][0].weight, wanted)


def test_a_frozen_encoder_has_a_projection_and_no_twin():
    for keys in ({"freeze_img": True}, {}):
        model = build(Towers() if keys else CachedBackbone({"image": WIDTH}, {}, "toy"), **keys)
        assert "backbone" not in model.twin and isinstance(model.projection, nn.Linear)
        x = random(3, WIDTH)
        torch.testing.assert_close(model.projection(x), x)  # the identity to begin with
    assert isinstance(build(Towers()).projection, nn.Identity)
    assert isinstance(build(Towers(), projection="linear").projection, nn.Linear)
    assert isinstance(
        make_model("pzsh", toy_problem(16), projection="none").projection, nn.Identity
    )


def test_switches_that_freeze():
    for frozen in (("image",), ("text",), ("image", "text")):
        keys = {{"image": "freeze_img", "text": "freeze_txt"}[m]: True for m in frozen}
        backbone = Towers()
        model = build(backbone, caption=True, **keys)
        assert backbone.frozen == frozen
        trained = [p for p in backbone.parameters() if p.requires_grad]
        assert len(model.param_groups().get("backbone", [])) == len(trained) == 4 - 2 * len(frozen)


def test_captions_train_the_text_tower():
    batch = raw_batch()
    for caption, frozen in ((True, False), (True, True), (False, False)):
        model = build(Towers(), caption=caption, freeze_txt=frozen).train()
        outputs = model(batch)
        assert bool(outputs.caption_feature.any()) == caption
        loss = PZSHLoss(PZSHLossConfig(), toy_problem(BITS))
        terms = loss(outputs, batch, Progress())
        assert (terms.align_text.item() > 0) == caption
        terms.total().backward()
        moved = model.backbone.text.weight.grad
        assert (moved is not None and bool(moved.any())) == (caption and not frozen)
    request = PZSH.input_request(PZSHConfig(caption=True), ("image",))
    assert request.towers == ("image", "text")
    with pytest.raises(UserError, match="pictures of 32 features to texts of 5"):
        build(Towers(text_width=5), caption=True)


def test_targets_are_those_of_the_batch():
    model = build(Towers())
    batch = raw_batch()
    target = model(batch).pseudo_feature
    assert torch.equal(target, batch.auxiliary[PSEUDO].image_features.pooled)
    outputs = model(raw_batch(pseudo=False))
    assert not outputs.pseudo_feature.any() and not outputs.caption_feature.any()
    torch.testing.assert_close(outputs.image_aligned.norm(dim=1), torch.ones(ROWS))


def test_what_results_say():
    on = build(Towers()).protocol_notes({PSEUDO: "pictures", TGI: "7 pictures"})
    assert on == {
        "alignment": "to pictures", "synthetic_rows_of_unseen_classes": "7 pictures",
        "names_of_unseen_classes_used_in_training": True,
    }  # fmt: skip
    off = build(Towers(), tgi=False).protocol_notes({})
    assert off["alignment"].startswith("off: no pseudo-images")
    assert off["synthetic_rows_of_unseen_classes"] == "off (model.tgi=false)"
    for tgi in (True, False):
        request = PZSH.input_request(PZSHConfig(tgi=tgi), ("image",))
        assert request.auxiliary == (PSEUDO,) and request.generated_rows == tgi


def test_settings_that_cannot_be():
    for keys, said in (
        ({"hidden": 0}, "model.hidden=0"),
        ({"momentum": 1.5}, "model.momentum=1.5"),
    ):
        with pytest.raises(UserError, match=said):
            PZSHConfig(**keys)
