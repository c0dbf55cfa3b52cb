"""The baseline: its head, also as released, and its loss."""

from __future__ import annotations

from models.base import Outputs, Problem, Progress
from models.cross_modal.baseline import (
    Baseline,
    BaselineLoss,
    BaselineLossConfig,
    BaselineModelConfig,
    quantization,
)
from tests.golden.adapters._common import (
    compare_gradients,
    encode,
    features_backbone,
    features_batch,
    label_batch,
    load_renamed,
)
from tests.golden.harness import RTOL_HEAD, Case, adapter


@adapter("baseline_head")
def baseline_head(case: Case) -> None:
    """Both heads in evaluation mode, and texts through the picture's head as released."""
    image, text = case.tensor("in_img_feat"), case.tensor("in_txt_feat")
    problem = Problem(bits=case.array("out_img").shape[1], n_classes=1)
    config = BaselineModelConfig(hidden=case.array("w_img_hash.0.weight").shape[0])
    model = Baseline(config, problem, features_backbone(image.shape[1]))
    load_renamed(model.heads["image"], case.weights("w_img_hash."), {})
    load_renamed(model.heads["text"], case.weights("w_txt_hash."), {})
    image_code, text_code = encode(model, features_batch(image, text))
    case.close("out_img", image_code, RTOL_HEAD)
    case.close("out_txt_intended", text_code, RTOL_HEAD)
    case.close("out_txt_as_coded_uses_img_branch", model.heads["image"](text), RTOL_HEAD)


@adapter("baseline_bayesian")
def baseline_bayesian(case: Case) -> None:
    """Terms, total and gradients; the likelihood is the same number in both directions."""
    image, text = case.leaf("in_img"), case.leaf("in_txt")
    loss = BaselineLoss(BaselineLossConfig(quan_alpha=case.cfg("quan_alpha")))
    outputs = Outputs(image_code=image, text_code=text)
    terms = loss(outputs, label_batch(case.tensor("in_labels")), Progress())
    for direction in ("i2t", "t2i"):
        case.close(f"out_{direction}", terms.pair)
    for name, code in (("img", image), ("txt", text)):
        case.close(f"out_quan_{name}", quantization(code))
    case.close("out_loss", terms.total())
    compare_gradients(case, terms.total(), grad_img=image, grad_txt=text)
