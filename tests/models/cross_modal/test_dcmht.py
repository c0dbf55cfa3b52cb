"""DCMHT's variant of ours against a loop over pairs; what is as released: tests/golden."""

from __future__ import annotations

import math

import pytest
import torch

from models.base import Batch, Outputs, Progress
from models.cross_modal.dcmht import DCMHTLoss, DCMHTLossConfig
from tests.models.toys import ROWS, toy_labels, toy_problem
from utils.errors import UserError

BITS = 8


@pytest.mark.parametrize("power", [1, 2])
def test_graded_relevance_places_pairs_by_their_share_of_labels(power):
    generator = torch.Generator().manual_seed(0)
    image, text = torch.rand(2, ROWS, 2 * BITS, generator=generator, dtype=torch.float64)
    label = toy_labels(multi=True)
    config = DCMHTLossConfig(relevance="graded", vartheta=0.4, power=power)
    loss = DCMHTLoss(config, toy_problem(BITS, multi=True))
    outputs = Outputs(image_pairs=image, text_pairs=text)
    terms = loss(outputs, Batch(label=label, index=torch.arange(ROWS)), Progress())
    margin, sets = math.sqrt(2 * BITS * 0.4), [set(row.nonzero()[:, 0].tolist()) for row in label]
    assert any(0 < len(a & b) < len(a | b) for a in sets for b in sets)
    for pair, first, second in (("it", image, text), ("ii", image, image), ("tt", text, text)):
        near = far = 0.0
        for x, a in zip(first, sets, strict=True):
            for y, b in zip(second, sets, strict=True):
                distance = math.dist(x.tolist(), y.tolist())
                if a & b:
                    near += abs(distance - margin * (1 - len(a & b) / len(a | b))) ** power
                else:
                    far += max(margin - distance, 0) ** power
        assert terms[f"pos_{pair}"].item() == pytest.approx(near / ROWS**2)
        assert terms[f"neg_{pair}"].item() == pytest.approx(far / ROWS**2)


@pytest.mark.parametrize("similarity", ["cosine", "cosine_likelihood"])
def test_graded_relevance_needs_distances(similarity):
    with pytest.raises(UserError, match="relevance=graded .* give loss.similarity=euclidean"):
        DCMHTLossConfig(relevance="graded", similarity=similarity)
