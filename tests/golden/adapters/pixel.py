"""PIXEL: its loss and the two linear layers of its text side, as released."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from models.base import Outputs, Problem, Progress
from models.zero_shot.pixel import OverBothAxes, PixelLoss, PixelLossConfig
from tests.golden.adapters._common import compare_gradients, label_batch
from tests.golden.harness import Case, adapter


def text_side(case: Case) -> OverBothAxes:
    """Return the recorded layers: over the width, then over the tokens."""
    over_width, over_tokens = case.array("in_Wembed"), case.array("in_Wattr")
    layers = OverBothAxes(
        over_width.shape[1], over_tokens.shape[1], over_width.shape[0], over_tokens.shape[0]
    ).double()
    for layer, name in ((layers.features, "embed"), (layers.places, "attr")):
        layer.weight = nn.Parameter(case.tensor(f"in_W{name}", torch.float64))
        layer.bias = nn.Parameter(case.tensor(f"in_b{name}", torch.float64))
    return layers


@adapter("pixel_loss")
def pixel_loss(case: Case) -> None:
    """All terms without their weights, the total, cosines (the columns recorded), all gradients."""
    att = case.tensor("in_att")
    classes, bits = case.array("in_centroids").shape
    problem = Problem(bits, classes, attributes=att)
    config = PixelLossConfig(
        variant="released",
        form="arc" if case.cfg("arcface") else "cosine",
        margin=case.cfg("m"),
        scale=case.cfg("s"),
        w_semantic=case.cfg("w_se"),
        w_regression=case.cfg("w_tr"),
    )
    loss = PixelLoss(config, problem).double()
    loss.attributes.copy_(att)  # of unit length already, to the last digit
    loss.centroids = nn.Parameter(case.tensor("in_centroids"))
    loss.text_scale = nn.Parameter(torch.full((1,), case.cfg("text_scale"), dtype=torch.float64))
    code, image, hidden = (case.leaf(f"in_{n}") for n in ("code", "img_attr", "text_hidden"))
    text = text_side(case)(hidden).mT
    label = F.one_hot(case.tensor("in_labels"), classes).double()
    outputs = Outputs(image_code=code, image_attributes=image, text_attributes=text)
    terms = loss(outputs, label_batch(label), Progress())
    cosines = loss.cosines(code)
    case.close("out_cos_logits", cosines[:, : case.array("out_cos_logits").shape[1]])
    case.close("out_ce", terms.cls)
    case.close("out_reg", loss.regression(image, label))
    case.close("out_semantic_dist", loss.semantic_distance(image, text, label))
    case.close("out_total", terms.total())
    compare_gradients(
        case, terms.total(), grad_code=code, grad_centroids=loss.centroids, grad_img_attr=image,
        grad_text_hidden=hidden, grad_text_scale=loss.text_scale,
    )  # fmt: skip
