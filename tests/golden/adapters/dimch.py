"""DIMCH: sets of instances, their similarities, the weighted triplet, its training run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, get_args

import torch
from torch import Tensor

from common.batch import Batch, Features
from common.pairwise import pairwise_cosine, pairwise_euclidean, share_label
from models.backbones.base import CachedBackbone
from models.base import Outputs, Problem, Progress, Terms
from models.cross_modal.dimch import DIMCH, DIMCHLoss, DIMCHLossConfig, DIMCHModelConfig
from models.losses.ranked_triplet import conflict_sum, dcg_weight, ranked_triplet
from models.losses.set_similarity import BagForm, bag_similarity, member_products, smooth_chamfer
from tests.golden.adapters._common import (
    SHORT,
    compare_gradients,
    features_batch,
    label_batch,
    load_renamed,
)
from tests.golden.harness import RTOL_HEAD, Case, GoldenError, adapter
from tests.golden.replay import (
    Setup,
    clip_groups,
    clip_of,
    problem_of,
    trajectory,
)

TEMPSCALE2 = {"temperature": 8.0, "scale": 2.0}  # of the variant, as the recordings' README says
HEAD = {"token_layer.": "conv.", "hash_layer.": "mlp."}
NEVER_TRAINED = (".mp_dist.alpha", ".mp_dist.beta")  # of sigmoid(α c + β); no optimiser has them
DISTANCE_NOT_COMPARED = {
    f"out_final_*{name}": "a constant of ours: it is in no optimiser there"
    for name in NEVER_TRAINED
}


def tokens_batch(image: Tensor, text: Tensor) -> Batch:
    """Return a batch of token features [B,L,D]; the first image token is the class token."""
    return features_batch(Features(image[:, 0], image[:, 1:]), Features(text[:, -1], text))


def tokens_backbone(batch: Batch) -> CachedBackbone:
    """Return the backbone that passes such features through."""
    image, text = batch.image_features.tokens, batch.text_features.tokens
    widths = {"image": image.shape[2], "text": text.shape[2]}
    backbone = CachedBackbone(widths, widths, "golden")
    backbone.token_counts = {"image": image.shape[1], "text": text.shape[1]}
    return backbone


def recorded_config(case: Case, **changes: Any) -> DIMCHLossConfig:
    """Return the loss's settings: what the file states, the defaults for what it does not."""
    names = [field.name for field in dataclasses.fields(DIMCHLossConfig)]
    found = {name: case.cfg(name) for name in names if f"cfg_{name}" in case}
    return DIMCHLossConfig(**{**found, **changes})


@adapter("dimch_distance")
def dimch_distance(case: Case) -> None:
    """All forms, the one of other temperatures, and the unused one of distances.

    The latter is the smooth Chamfer similarity of negated Euclidean distances, negated.
    """
    size = case.cfg("set_size")
    image, text = (case.tensor(f"in_{short}").unflatten(0, (-1, size)) for short in SHORT.values())
    options = {
        "temperature": case.cfg("temperature"),
        "scale": case.cfg("temperature_txt_scale"),
        "denominator": case.cfg("denominator"),
    }
    cosine = member_products(image, text)
    for form in get_args(BagForm):
        case.close(f"out_{form}", bag_similarity(cosine, form, **options))
    variant = smooth_chamfer(cosine, **{**options, **TEMPSCALE2})
    case.close("out_smooth_chamfer_tempscale2", variant)
    distance = pairwise_euclidean(image.flatten(0, 1), text.flatten(0, 1)).reshape(cosine.shape)
    case.close("out_smooth_chamfer_euclidean", -smooth_chamfer(-distance, **options))


@adapter("generate_weight_sim")
def generate_weight_sim(case: Case) -> None:
    """The weights of all pairs, and who shares a label."""
    label = case.tensor("in_labels")
    case.equal("out_label_sim", share_label(label, label))
    case.close("out_weight", dcg_weight(label))


@adapter("dimch_triplet")
def dimch_triplet(case: Case) -> None:
    """The loss on cosine distances, unweighted, and summed; the cubes of weights and masks.

    The cubes are no part of our computation; they are built here from our matrices.
    """
    source, target = case.leaf("in_source"), case.leaf("in_target")
    label, margin = case.tensor("in_labels"), case.cfg("margin")
    similar, weight = share_label(label, label), dcg_weight(label)
    case.equal("out_mask", similar[:, :, None] * (1 - similar)[:, None])
    case.close("out_weight", weight[:, :, None] - weight[:, None])
    distance = (1 - pairwise_cosine(source, target)).clamp_min(0)
    loss = ranked_triplet(distance, similar, weight, margin)
    case.close("out_loss", loss)
    case.close("out_loss_unweighted", ranked_triplet(distance, similar, similar, margin))
    case.close("out_loss_sum", conflict_sum(distance, similar, weight, margin)[0])
    compare_gradients(case, loss, grad_source=source, grad_target=target)


@adapter("dimch_head")
def dimch_head(case: Case) -> None:
    """Instances and codes in evaluation mode, where dropout does nothing."""
    batch = tokens_batch(case.tensor("in_img_tokens"), case.tensor("in_txt_tokens"))
    config = DIMCHModelConfig(set_size=case.cfg("set_dim"))
    problem = Problem(case.array("out_img_hash").shape[1], 1)
    model = DIMCH(config, problem, tokens_backbone(batch)).eval()
    for modality, short in SHORT.items():
        load_renamed(model.heads[modality], case.weights(f"w_{short}_token_hash."), HEAD)
    outputs = model(batch)
    for modality, short in SHORT.items():
        case.close(f"out_{short}_embeds", outputs[f"{modality}_instances"], RTOL_HEAD)
        case.close(f"out_{short}_hash", outputs[f"{modality}_code"], RTOL_HEAD)
        case.close(f"out_{short}_hash", model.encode(batch, modality), RTOL_HEAD)


@adapter("dimch_loss")
def dimch_loss(case: Case) -> None:
    """All terms without their weights, the total, and all gradients.

    The loss is one function of instances and codes, whatever made the codes (``cfg_hash_func``).
    """
    if case.cfg("hash_func") not in ("tanh", "softmax"):
        raise GoldenError(f"{case.source}: cfg_hash_func is {case.cfg('hash_func')!r}")
    outputs = Outputs()
    leaves = {}
    for modality, short in SHORT.items():
        for ours, theirs in (("instances", "embeds"), ("code", "hash")):
            leaves[f"grad_{short}_{theirs}"] = case.leaf(f"in_{short}_{theirs}")
            outputs[f"{modality}_{ours}"] = leaves[f"grad_{short}_{theirs}"]
    size = outputs.image_instances.shape[1]
    case.agree("set_size", size)
    batch = label_batch(case.tensor("in_labels"))
    ones = {"triplet_alpha": 1, "hash_triplet_alpha": 1, "mmd_alpha": 1, "unif_alpha": 1}
    plain = DIMCHLoss(recorded_config(case, **ones, quan_alpha=1))
    for name, term in raw_terms(plain.config, plain(outputs, batch, Progress())).items():
        case.close(f"out_{name}", term)
    total = DIMCHLoss(recorded_config(case))(outputs, batch, Progress()).total()
    case.close("out_loss", total)
    compare_gradients(case, total, **leaves)


def raw_terms(config: DIMCHLossConfig, terms: Terms) -> dict[str, Tensor]:
    """Return the terms without their weights, under the recorded names of ``dimch_loss``."""
    crowding = terms.div_image + terms.div_text
    found = {"mmd": terms.mmd / config.mmd_alpha, "div_sum": crowding / config.unif_alpha}
    for way in ("i2t", "t2i"):
        found[f"tok_{way}"] = terms[f"token_{way}"] * 2 / config.triplet_alpha
        found[f"hash_{way}"] = terms[f"hash_{way}"] * 2 / config.hash_triplet_alpha
    for modality, short in SHORT.items():
        found[f"quan_{short}"] = terms[f"quan_{modality}"] * 2 / config.quan_alpha
    return found


TRAJECTORY_TERMS = {
    "Tokens_Similarity_i2t": "tok_i2t",
    "Tokens_Similarity_t2i": "tok_t2i",
    "Tokens_Maximum_Mean_Discrepancy": "mmd",
    "Tokens_Diversity": "div_sum",
    "Hash_Triplet_i2t": "hash_i2t",
    "Hash_Triplet_t2i": "hash_t2i",
    "Hash_Quantization_image": "quan_img",
    "Hash_Quantization_text": "quan_txt",
}


def token_counts(case: Case) -> dict[str, int]:
    """Return how many tokens the recorded CLIP gives, without the class token."""
    positions = case.array("w_backbone.visual.positional_embedding")
    return {"image": len(positions) - 1, "text": case.array("in_text").shape[1]}


@trajectory("traj_dimch", not_compared=DISTANCE_NOT_COMPARED)
def dimch(case: Case, dtype: torch.dtype) -> Setup:
    """DIMCH on the tiny CLIP; α and β of an unused distance are never trained."""
    case.agree("hash_func", "tanh")
    problem = problem_of(case)
    backbone = clip_of(case, "w_backbone.", dtype)
    backbone.token_counts = token_counts(case)
    config = DIMCHModelConfig(set_size=case.cfg("set_dim"), dropout=case.cfg("dropout"))
    model = DIMCH(config, problem, backbone)
    loss = DIMCHLoss(recorded_config(case), problem)

    def terms(ours: Terms, outputs: Outputs) -> Mapping[str, Tensor]:
        raw = raw_terms(loss.config, ours)
        return {theirs: raw[name] for theirs, name in TRAJECTORY_TERMS.items()}

    names = {
        f"hash.{short}_token_hash.{theirs}": f"model.heads.{modality}.{own}"
        for modality, short in SHORT.items()
        for theirs, own in HEAD.items()
    }
    return Setup(
        model=model,
        loss=loss,
        names=names,
        optim=clip_groups(case),
        terms=terms,
        real=model.encode,
        further={"instances": model.instances},
        absent=(".logit_scale", *NEVER_TRAINED),
    )
