"""TwDH's model and loss against loops written from the equations."""

import dataclasses
import math

import pytest
import torch

from common.codes import sign
from models.base import Outputs, Problem, Progress
from models.centers.twdh_transforms import projection
from models.cross_modal.twdh import TwDH, TwDHLoss, TwDHLossConfig, short_lengths
from tests.models.toys import CLASSES, ROWS, make_model, take, toy_batch, toy_problem
from utils.errors import UserError

LONG = 32
SMALL = {"long_bits": LONG, "short_bits": [4, 8]}


def small_model(bits=8, multi=True, **keys):
    return make_model("twdh", toy_problem(bits, multi), **{**SMALL, **keys})


def small_loss(bits=8, seed=0, **keys):
    config = TwDHLossConfig(**{"short_bits": (4, 8), **keys})
    return TwDHLoss(config, toy_problem(bits, True, seed=seed))


def test_lengths():
    assert short_lengths([16, 64, 32], 32, 512) == [16, 32, 64]
    assert short_lengths([16], 48, 512) == [16, 48]
    assert short_lengths([16], 512, 512) == [16]
    assert small_model(6).lengths == [4, 6, 8]
    assert small_model(LONG, short_bits=[]).lengths == []


@pytest.mark.parametrize(("bits", "short"), [(64, [4]), (8, [4, 33]), (8, [0])])
def test_short_codes_longer_than_the_long_one(bits, short):
    with pytest.raises(UserError, match="must lie between 1 and model.long_bits=32"):
        TwDH(
            dataclasses.replace(small_model().config, short_bits=tuple(short)),
            Problem(bits, CLASSES), small_model().backbone,
        )  # fmt: skip


@torch.no_grad()
def test_codes_of_every_length():
    model, batch = small_model(6).eval(), toy_batch(True)
    for modality in ("image", "text"):
        long = model.long_pairs(batch, modality)
        torch.testing.assert_close(long[:, ::2] + long[:, 1::2], torch.ones(ROWS, LONG))
        for length in (4, 6, 8, LONG):
            model.set_bits(length)
            code = model.encode(batch, modality)
            assert code.shape == (ROWS, length)
            logits = long @ model.transform(length) if length != LONG else long
            wanted = [
                [1.0 if row[2 * k + 1] > row[2 * k] else -1.0 for k in range(length)]
                for row in logits.tolist()
            ]
            assert sign(code).tolist() == wanted
            outputs = model(batch)
            torch.testing.assert_close(outputs[f"{modality}_code"], code)


@torch.no_grad()
def test_outputs_for_the_loss():
    model, batch = small_model(6).eval(), toy_batch(True)
    outputs = model(batch)
    assert outputs.image_short_pairs.shape == (ROWS, 2 * (4 + 6 + 8))
    assert outputs.short_vote.shape == (ROWS, 4 + 6 + 8)
    for row in range(ROWS):
        carried = batch.label[row].nonzero()[:, 0].tolist()
        long = sum(model.long_centers[c] for c in carried)
        short = sum(
            torch.cat([model.short_centers(length)[c] for length in (4, 6, 8)]) for c in carried
        )
        assert torch.equal(outputs.long_vote[row], long)
        assert torch.equal(outputs.short_vote[row], short)
    alone = small_model(LONG, short_bits=[])(batch)
    assert alone.image_short_pairs.shape == (ROWS, 0) == alone.short_vote.shape
    assert alone.image_code.shape == (ROWS, LONG)


def test_the_long_network_depends_on_no_short_length():
    one, two = small_model(8), small_model(6, short_bits=[16])
    for key, value in one.state_dict().items():
        if not key.startswith(("short_centers", "transform")):
            assert torch.equal(value, two.state_dict()[key]), key
    three = small_model(8, short_bits=[6])  # nor does a length depend on the others
    for key in ("short_centers_6", "transform_6"):
        assert torch.equal(two.get_buffer(key), three.get_buffer(key))


def test_transforms_can_be_replaced_and_are_saved():
    model, batch = small_model().eval(), toy_batch(True)
    torch.testing.assert_close(
        model.transform(8), projection(model.long_centers, model.short_centers(8))
    )
    before = model.encode(batch, "image")
    model.set_transform(8, -model.transform(8))
    torch.testing.assert_close(model.encode(batch, "image"), -before)
    other = small_model()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.eval().encode(batch, "image"), model.encode(batch, "image"))


def loop_loss(outputs, label, ties, config, lengths):
    """Return the loss from the equations, entry by entry."""

    def bce(pairs, vote, tie):
        total, count = 0.0, 0
        for i in range(len(pairs)):
            if not label[i].any():
                continue
            for k in range(vote.shape[1]):
                t = vote[i, k].sign().item() or tie[k].item()
                p = (pairs[i, 2 * k], pairs[i, 2 * k + 1])
                for value, wanted in zip(p, (t < 0, t > 0), strict=True):
                    total -= math.log(value if wanted else 1 - value)
                    count += 1
        return total / max(count, 1)

    def quan(pairs):
        return 1 - sum((2 * p - 1) ** 2 for p in pairs.ravel().tolist()) / pairs.numel()

    total = 0.0
    for modality in ("image", "text"):
        pairs = outputs[f"{modality}_long_pairs"].detach()
        total += bce(pairs, outputs.long_vote, ties[0]) / 2 + config.quan_alpha * quan(pairs) / 2
        short = outputs[f"{modality}_short_pairs"].detach().split([2 * n for n in lengths], 1)
        votes = outputs.short_vote.split(lengths, 1)
        for q, vote, tie in zip(short, votes, ties[1:], strict=True):
            total += config.low_rate * (bce(q, vote, tie) + quan(q)) / 2
    return total


@pytest.mark.parametrize("low_rate", [0.0, 0.3])
@pytest.mark.parametrize("unlabelled", [[], [1, 3], list(range(6))])
def test_the_loss(low_rate, unlabelled):
    model = small_model(6).double().eval()
    batch = take(toy_batch(True), slice(0, 6)).to("cpu", torch.float64)
    batch.label[0] = 1  # an even number of classes: many ties
    batch.label[unlabelled] = 0
    loss, progress = small_loss(6, quan_alpha=0.7, low_rate=low_rate), Progress(step=4)
    outputs = model(batch)
    terms = loss(outputs, batch, progress)
    lengths = [4, 6, 8]
    ties = loss.tie_breaks([LONG, *lengths], progress)
    wanted = loop_loss(outputs, batch.label, ties, loss.config, lengths)
    assert terms.total().item() == pytest.approx(wanted, rel=1e-9)
    short = {f"short_{kind}_{n}" for kind in ("bce", "quan") for n in lengths}
    long = {f"{kind}_{m}" for kind in ("bce", "quan") for m in ("image", "text")}
    assert set(terms) == (long | short if low_rate else long)
    terms.total().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_ties_are_shared_and_drawn_anew_at_every_step():
    loss = small_loss()
    vote = torch.zeros(5, LONG)
    vote[:, 0] = 3.0
    found = [loss.targets(Outputs(long_vote=vote), Progress(step=step))[LONG] for step in (0, 0, 1)]
    for target in found:
        assert bool((target == target[0]).all()) and target[0, :2].tolist() == [0, 1]
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    drawn = torch.stack([loss.tie_breaks([LONG], Progress(step=step))[0] for step in range(200)])
    assert len(drawn.unique(dim=0)) == 200 and abs(drawn.mean()) < 0.05
    long, _ = loss.tie_breaks([LONG, 8], Progress(step=2))
    assert torch.equal(long, loss.tie_breaks([LONG], Progress(step=2))[0])
    assert not torch.equal(long, small_loss(seed=1).tie_breaks([LONG], Progress(step=2))[0])


def test_other_lengths_than_the_models_are_refused():
    batch = toy_batch(True)
    outputs = small_model()(batch)
    loss = small_loss(low_rate=0.1, short_bits=(4, 8, 16))
    with pytest.raises(UserError, match="give loss.short_bits the value of model.short_bits"):
        loss(outputs, batch, Progress())
    loss = small_loss(short_bits=(4, 8, 16))  # without low_rate they mean nothing
    assert loss(outputs, batch, Progress()).total().isfinite()


def test_saturated_pairs_stay_finite():
    pairs = torch.tensor([[1.0, 0.0, 0.0, 1.0]], requires_grad=True)
    outputs = Outputs(
        image_long_pairs=pairs, text_long_pairs=pairs, image_short_pairs=pairs[:, :0],
        text_short_pairs=pairs[:, :0], long_vote=torch.tensor([[1.0, 1.0]]),
    )  # fmt: skip
    total = (
        small_loss()
        .terms(outputs, small_loss().targets(outputs, Progress()), torch.ones(1))
        .total()
    )
    total.backward()
    assert total.item() == pytest.approx(50.0) and bool(pairs.grad.isfinite().all())
