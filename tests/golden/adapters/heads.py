"""Hash heads: features in, real-valued outputs and codes out."""

from __future__ import annotations

import torch

from common.codes import sign
from models.base import Problem
from models.cross_modal.dcmht import DCMHT, DCMHTLinear, DCMHTModelConfig
from models.cross_modal.dsph import DSPH
from models.layers.heads import LinearTanhConfig
from models.layers.pair_softmax import pair_softmax, pairs_to_code
from tests.golden.adapters._common import (
    SHORT,
    encode,
    features_backbone,
    features_batch,
    load_renamed,
)
from tests.golden.harness import RTOL_HEAD, Case, adapter


@adapter("softmax_hash")
def softmax_hash(case: Case) -> None:
    """Softmax over pairs, its decoding with exact ties, and the two one-hot pairs."""
    pairs = pair_softmax(case.tensor("in_logits"))
    case.close("out_prob", pairs)
    case.equal("out_code", sign(pairs_to_code(pairs)))
    one_hot = torch.eye(2, dtype=pairs.dtype)  # class 0, class 1
    case.equal("out_onehot_pm1", sign(pairs_to_code(one_hot))[:, 0])


@adapter("dcmht_head")
def dcmht_head(case: Case) -> None:
    """The attention head in both modes, and the running statistics after one training forward."""
    config = DCMHTModelConfig(head="attention", attention_heads=case.cfg("num_heads"))
    problem = Problem(bits=case.cfg("output_dim"), n_classes=1)
    model = DCMHT(config, problem, features_backbone(case.cfg("dim")))
    names = {"atten.": "attention.", "fc2.": "fc."}
    load_renamed(model.heads["image"], case.weights("w_img_hash."), names)
    load_renamed(model.heads["text"], case.weights("w_txt_hash."), names)
    batch = features_batch(case.tensor("in_img_feat"), case.tensor("in_txt_feat"))
    model.eval()
    case.close("out_img_eval", model.pairs(batch, "image"), RTOL_HEAD)
    case.close("out_txt_eval", model.pairs(batch, "text"), RTOL_HEAD)
    image, text = encode(model, batch)
    case.equal("out_img_code", sign(image))
    case.equal("out_txt_code", sign(text))
    outputs = model.train()(batch)
    case.close("out_img_train", outputs.image_pairs, RTOL_HEAD)
    case.close("out_txt_train", outputs.text_pairs, RTOL_HEAD)
    norm = model.heads["image"].norm
    case.close("out_running_mean_after", norm.running_mean, RTOL_HEAD)
    case.close("out_running_var_after", norm.running_var, RTOL_HEAD)


@adapter("dchmt_orig_head")
def dchmt_orig_head(case: Case) -> None:
    """The select head and the linear head; one feature matrix serves for both modalities."""
    features = case.tensor("in_feat")
    batch = features_batch(features, features)
    backbone = features_backbone(features.shape[1])
    problem = Problem(bits=case.array("out_select_code").shape[1], n_classes=1)
    select = DCMHT(DCMHTModelConfig(head="select", hidden=case.cfg("hidden")), problem, backbone)
    linear = DCMHTLinear(LinearTanhConfig(), problem, backbone)
    for modality in SHORT:
        names = {"hash_list.": "bit_layers."}
        load_renamed(select.heads[modality], case.weights("w_select."), names)
        load_renamed(linear.heads[modality], case.weights("w_linear."), {"fc.": "0."})
    for code in encode(select, batch):
        case.equal("out_select_code", sign(code))
    for modality in SHORT:
        case.close("out_select_prob_concat", select.pairs(batch, modality), RTOL_HEAD)
    for code in encode(linear, batch):
        case.close("out_linear_tanh", code, RTOL_HEAD)


@adapter("dsph_head")
def dsph_head(case: Case) -> None:
    """Linear and tanh for each modality, in evaluation mode, where dropout does nothing."""
    image, text = case.tensor("in_img_feat"), case.tensor("in_txt_feat")
    problem = Problem(bits=case.array("out_img").shape[1], n_classes=1)
    config = LinearTanhConfig(dropout=case.cfg("dropout"))
    model = DSPH(config, problem, features_backbone(image.shape[1]))
    load_renamed(model.heads["image"], case.weights("w_img_hash."), {"fc.": "0."})
    load_renamed(model.heads["text"], case.weights("w_txt_hash."), {"fc.": "0."})
    for name, code in zip(SHORT.values(), encode(model, features_batch(image, text)), strict=True):
        case.close(f"out_{name}", code, RTOL_HEAD)
        case.equal(f"out_{name}_code", sign(code))
