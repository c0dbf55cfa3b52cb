"""What every registered model promises; registering a model is enough to have it tested here."""

import pytest
import torch

from common.codes import sign
from common.registry import MODELS
from common.storage import checkpoint
from tests.models.toys import BITS, ROWS, make_model, take, toy_batch, toy_problem

every_model = pytest.mark.parametrize("name", MODELS.names())


def modalities_of(name):
    return MODELS.get(name).target.modalities or ("image", "text")


@torch.no_grad()
def codes(model, batch):
    model.eval()
    return {m: sign(model.encode(batch, m)) for m in model.modalities}


@every_model
@pytest.mark.parametrize("multi", [False, True], ids=["single", "multi"])
@pytest.mark.parametrize("bits", [1, *BITS])
def test_outputs_and_codes(name, bits, multi):
    model, batch = make_model(name, toy_problem(bits, multi)), toy_batch(multi)
    entry = MODELS.get(name)
    assert model.modalities == modalities_of(name)
    for rows in (ROWS, 1):
        part = take(batch, slice(0, rows))
        part.label[0] = 0  # a row without label
        outputs = model.train()(part)
        assert set(outputs) == set(entry.provides or outputs)
        for output, value in outputs.items():
            assert len(value) == rows and bool(value.isfinite().all()), output
        assert {m: c.shape for m, c in outputs.codes().items()} == {
            m: (rows, bits) for m in model.modalities
        }
        for modality, code in codes(model, part).items():
            assert code.shape == (rows, bits), modality
            assert set(code.unique().tolist()) <= {-1.0, 1.0}


@every_model
def test_a_single_class(name):
    model = make_model(name, toy_problem(16, classes=1))
    batch = toy_batch(classes=1)
    for value in (*model(batch).values(), *codes(model, batch).values()):
        assert len(value) == ROWS and bool(value.isfinite().all())


@every_model
def test_a_row_is_encoded_alike_in_any_company(name):
    model, batch = make_model(name, toy_problem(16)).eval(), toy_batch()
    with torch.no_grad():
        for modality in model.modalities:
            together = model.encode(batch, modality)
            alone = torch.cat([model.encode(take(batch, [i]), modality) for i in range(4)])
            torch.testing.assert_close(alone, together[:4], rtol=1e-4, atol=1e-5)


@every_model
def test_the_seed_decides(name):
    batch = toy_batch()
    first, second, other = (
        make_model(name, toy_problem(48, seed=seed), seed) for seed in (0, 0, 1)
    )
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key
    one, two, three = (codes(model, batch) for model in (first, second, other))
    for modality in one:
        assert torch.equal(one[modality], two[modality])
        assert not torch.equal(one[modality], three[modality])


@every_model
def test_save_and_reload_gives_the_same_codes(name, tmp_path):
    batch = toy_batch()
    model = make_model(name, toy_problem(48))
    model.train()(batch)  # so that running statistics are not those of a new model
    checkpoint.save(tmp_path / "c", {"model": model})
    other = make_model(name, toy_problem(48, seed=1), seed=1)
    checkpoint.load_modules(tmp_path / "c", {"model": other})
    wanted = codes(model, batch)
    for modality, code in codes(other, batch).items():
        assert torch.equal(code, wanted[modality])


@pytest.mark.parametrize("name", [n for n in MODELS.names() if not MODELS.get(n).target.modalities])
def test_models_for_any_modality_take_images_alone(name):
    model = make_model(name, toy_problem(16), modalities=("image",))
    assert model.modalities == ("image",)
    assert set(model(toy_batch()).codes()) == {"image"}


@every_model
def test_every_parameter_is_in_one_group_that_was_declared(name):
    model = make_model(name, toy_problem(16))
    groups = model.param_groups()
    assert set(groups) <= {"backbone", "head", *MODELS.get(name).groups}
    grouped = [id(p) for members in groups.values() for p in members]
    trainable = {id(p) for p in model.parameters() if p.requires_grad}
    assert len(grouped) == len(set(grouped)) and set(grouped) == trainable
