"""What every registered loss promises, with every model that it fits; registering one tests it."""

import pytest
import torch

from common.registry import LOSSES
from common.storage import checkpoint
from models.base import Progress
from tests.models.toys import (
    BITS,
    fitting_pairs,
    make_loss,
    make_model,
    take,
    toy_batch,
    toy_problem,
)

PAIRS = fitting_pairs()
every_loss = pytest.mark.parametrize("name", LOSSES.names())
every_pair = pytest.mark.parametrize(
    ("name", "model_name"), PAIRS, ids=[" on ".join(p) for p in PAIRS]
)
labels = pytest.mark.parametrize("multi", [False, True], ids=["single", "multi"])


def model_for(name):
    """Return a model that the loss fits: the one of the same name, if there is one."""
    fitting = [model for loss, model in PAIRS if loss == name]
    return name if name in fitting else fitting[0]


def terms_of(loss, model, batch, progress=Progress()):  # noqa: B008 - immutable
    terms = loss(model(batch), batch, progress)
    assert terms, "no term"
    for term, value in terms.items():
        assert value.numel() == 1 and bool(value.isfinite()), f"{term} is {value}"
    return terms


@every_loss
def test_some_model_fits(name):
    assert name in [loss for loss, _ in PAIRS]


@every_pair
@labels
@pytest.mark.parametrize("bits", [1, *BITS])
def test_terms_are_finite_and_reach_every_modality(name, model_name, bits, multi):
    problem = toy_problem(bits, multi)
    loss, model = make_loss(name, problem).train(), make_model(model_name, problem).train()
    batch = toy_batch(multi)
    inputs = [batch.features(m).pooled.requires_grad_() for m in model.modalities]
    tokens = [batch.features(m).tokens.requires_grad_() for m in model.modalities]
    total = terms_of(loss, model, batch).total()
    assert total.shape == ()
    total.backward()
    for modality, pooled, token in zip(model.modalities, inputs, tokens, strict=True):
        reached = sum(float(x.grad.abs().sum()) for x in (pooled, token) if x.grad is not None)
        assert reached > 0, f"no gradient reaches the {modality} side"
    gradients = [p.grad for p in model.param_groups()["head"] if p.grad is not None]
    assert gradients and all(bool(g.isfinite().all()) for g in gradients)
    assert any(bool(g.abs().sum() > 0) for g in gradients)


@every_loss
@labels
def test_odd_batches(name, multi):
    problem = toy_problem(16, multi)
    loss, model, batch = (
        make_loss(name, problem),
        make_model(model_for(name), problem),
        toy_batch(multi),
    )
    unlabelled = take(batch, slice(0, 5))
    unlabelled.label[2] = 0
    nothing = take(batch, slice(0, 3))
    nothing.label[:] = 0
    alike = take(batch, [0, 0, 0])
    for part in (take(batch, [0]), unlabelled, nothing, alike):
        model.zero_grad()
        terms_of(loss, model, part).total().backward()
        for parameter in (*model.parameters(), *loss.parameters()):
            assert parameter.grad is None or bool(parameter.grad.isfinite().all())


@every_loss
def test_a_single_class(name):
    problem = toy_problem(16, classes=1)
    terms_of(make_loss(name, problem), make_model(model_for(name), problem), toy_batch(classes=1))


@every_pair
@labels
def test_it_falls(name, model_name, multi):
    problem, batch = toy_problem(16, multi), toy_batch(multi)
    loss, model = make_loss(name, problem).train(), make_model(model_name, problem).train()
    parameters = [p for p in (*model.parameters(), *loss.parameters()) if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, 5e-3)
    totals = []
    for step in range(30):
        total = terms_of(loss, model, batch, Progress(0, step, 1, 30)).total()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert sum(totals[-5:]) < 0.97 * sum(totals[:5]), totals


@every_loss
def test_the_seed_decides_and_reloading_gives_the_same_terms(name, tmp_path):
    model, batch = make_model(model_for(name), toy_problem(48)).eval(), toy_batch()
    first, second = (make_loss(name, toy_problem(48)).eval() for _ in range(2))
    wanted = terms_of(first, model, batch)
    for term, value in terms_of(second, model, batch).items():
        assert torch.equal(value, wanted[term]), term
    checkpoint.save(tmp_path / "c", {"loss": first})
    other = make_loss(name, toy_problem(48, seed=1), seed=1).eval()
    checkpoint.load_modules(tmp_path / "c", {"loss": other})
    wanted = terms_of(first, model, batch)
    for term, value in terms_of(other, model, batch).items():
        assert torch.equal(value, wanted[term]), term


@every_loss
def test_every_parameter_is_in_one_group_that_was_declared(name):
    loss = make_loss(name, toy_problem(16))
    groups = loss.param_groups()
    assert set(groups) <= set(LOSSES.get(name).groups or {"loss"})
    grouped = [id(p) for members in groups.values() for p in members]
    trainable = {id(p) for p in loss.parameters() if p.requires_grad}
    assert len(grouped) == len(set(grouped)) and set(grouped) == trainable


@every_loss
def test_what_it_needs_is_what_it_reads(name):
    needs, problem = LOSSES.get(name).needs, toy_problem(16)
    assert needs, "needs= is not declared, so that a misfit is found at the first batch only"
    model = make_model(model_for(name), problem)
    batch = toy_batch()
    outputs = model(batch)
    for output in list(outputs):
        if not any(need in (output, "*_code") for need in needs):
            del outputs[output]
    make_loss(name, problem)(outputs, batch, Progress())
