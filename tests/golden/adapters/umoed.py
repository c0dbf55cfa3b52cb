"""UMoED: its decoder with a soft mixture of experts, distances, losses, its training run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from common.codes import sign
from models.base import Outputs, Problem, Progress, Terms
from models.cross_modal.umoed import (
    DecoderLayer,
    UMoED,
    UMoEDLoss,
    UMoEDLossConfig,
    UMoEDModelConfig,
    choice_codes,
)
from models.layers.soft_moe import SoftMoE
from tests.golden.adapters._common import SHORT, compare_gradients, label_batch, load_renamed
from tests.golden.adapters.dimch import (
    DISTANCE_NOT_COMPARED,
    NEVER_TRAINED,
    tokens_backbone,
    tokens_batch,
)
from tests.golden.harness import RTOL_HEAD, Case, adapter
from tests.golden.replay import (
    Setup,
    clip_groups,
    clip_of,
    problem_of,
    trajectory,
)

LAYER = {
    "self_attn.": "self_attention.", "multihead_attn.": "cross_attention.", "linear.": "linear.",
    "moe.phi": "moe.phi", "moe.experts.": "moe.",
    **{f"norm{n + 1}.": f"norms.{n}." for n in range(3)},
}  # fmt: skip


def decoder_names(layers: int) -> dict[str, str]:
    """Return the names of a decoder's parameters: theirs → ours."""
    names = {"decoder_learned_parameters": "queries", "classifier.": "classifier."}
    for n in range(layers):
        names |= {f"decoder.layers.{n}.{t}": f"layers.{n}.{o}" for t, o in LAYER.items()}
    return names


def layer_config(case: Case, heads: str, **more: Any) -> UMoEDModelConfig:
    """Return the settings of decoder layers that a file states; ``heads`` is its key for them."""
    return UMoEDModelConfig(
        heads=case.cfg(heads),
        experts=case.cfg("num_experts"),
        slots=case.cfg("slots_per_expert"),
        feedforward=case.cfg("dim_feedforward"),
        **more,
    )


@adapter("umoed_softmoe")
def umoed_softmoe(case: Case) -> None:
    """The mixture, and the gradient of its squares with respect to the tokens."""
    x = case.leaf("in_x")
    width = case.array("out_y").shape[2]
    moe = SoftMoE(x.shape[2], width, case.cfg("num_experts"), case.cfg("slots_per_expert"))
    load_renamed(moe.to(x.dtype), case.weights("w_"), {"experts.": ""})
    y = moe(x)
    case.close("out_y", y)
    compare_gradients(case, y.pow(2).sum(), grad_x_of_sum_sq=x)


@adapter("umoed_declayer")
def umoed_declayer(case: Case) -> None:
    """One decoder layer in evaluation mode."""
    x, tokens = case.tensor("in_tgt"), case.tensor("in_memory")
    layer = DecoderLayer(x.shape[2], layer_config(case, "nhead")).to(x.dtype).eval()
    load_renamed(layer, case.weights("w_"), LAYER)
    case.close("out_y", layer(x, tokens))


@adapter("umoed_head")
def umoed_head(case: Case) -> None:
    """Both modalities through the one decoder, in evaluation mode, and their codes."""
    batch = tokens_batch(case.tensor("in_img_tokens"), case.tensor("in_txt_tokens"))
    queries, layers = case.array("out_img_embeds").shape[1], case.cfg("layers")
    config = layer_config(case, "nhead", layers=layers, set_size=queries)
    problem = Problem(case.array("out_img_code").shape[1], 1)
    model = UMoED(config, problem, tokens_backbone(batch)).eval()
    load_renamed(model.decoder, case.weights("w_hash_module."), decoder_names(layers))
    outputs = model(batch)
    for modality, short in SHORT.items():
        case.close(f"out_{short}_embeds", outputs[f"{modality}_choices"], RTOL_HEAD)
        case.equal(f"out_{short}_code", sign(outputs[f"{modality}_code"]))
        case.equal(f"out_{short}_code", sign(model.encode(batch, modality)))


@adapter("linear_subspace_hash")
def linear_subspace_hash(case: Case) -> None:
    """The bits of the chosen words."""
    case.equal("out_code", sign(choice_codes(case.tensor("in_logits"))))


@adapter("umoed_distance")
def umoed_distance(case: Case) -> None:
    """Both distances, of sharpened probabilities and of the entries themselves."""
    first, second = case.tensor("in_a"), case.tensor("in_b")
    for theirs, ours in (("cosine", "cosine"), ("euclid", "euclidean")):
        for kind, sharpness in (("extreme", case.cfg("T")), ("plain", None)):
            loss = UMoEDLoss(UMoEDLossConfig(distance=ours, sharpness=sharpness))
            distance = loss.distance(first, second)
            case.close(f"out_{theirs}_{kind}", distance)
            if (theirs, kind) == ("cosine", "extreme"):
                case.close("out_cosine_sim_extreme", 1 - distance)


def recorded_config(case: Case, **changes: Any) -> UMoEDLossConfig:
    """Return the loss's settings; ``pairwise`` is the cosine form of ours."""
    mode = case.cfg("distance_mode")
    found = {
        "distance": "cosine" if mode == "pairwise" else mode,
        "sharpness": case.cfg("extreme_T"),
        **{
            name: case.cfg(name)
            for name in ("triplet_alpha", "token_triplet_margin", "unif_alpha", "uniformity_t")
        },
    }
    if "cfg_temperature" in case:
        found["temperature"] = case.cfg("temperature")
    return UMoEDLossConfig(**{**found, **changes})


@adapter("umoed_loss")
def umoed_loss(case: Case) -> None:
    """All terms without their weights, the total, and both gradients."""
    leaves = {f"grad_{short}": case.leaf(f"in_{short}_embeds") for short in SHORT.values()}
    outputs = Outputs(image_choices=leaves["grad_img"], text_choices=leaves["grad_txt"])
    case.agree("set_size", outputs.image_choices.shape[1])
    batch = label_batch(case.tensor("in_labels"))
    plain = UMoEDLoss(recorded_config(case, triplet_alpha=4, unif_alpha=3))
    terms = plain(outputs, batch, Progress())
    for way in ("i2t", "t2i"):
        case.close(f"out_tok_{way}", terms[f"token_{way}"])
    for modality in SHORT:
        case.close(f"out_div_{modality[0]}", terms[f"div_{modality}"])
    total = UMoEDLoss(recorded_config(case))(outputs, batch, Progress()).total()
    case.close("out_loss", total)
    compare_gradients(case, total, **leaves)


@trajectory("traj_umoed", not_compared=DISTANCE_NOT_COMPARED)
def umoed(case: Case, dtype: torch.dtype) -> Setup:
    """UMoED on the tiny CLIP; α and β of an unused distance are never trained."""
    problem = problem_of(case)
    config = layer_config(
        case,
        "decoder_heads",
        layers=case.cfg("decoder_layers"),
        set_size=case.cfg("set_dim"),
        dropout=case.cfg("dropout"),
    )
    model = UMoED(config, problem, clip_of(case, "w_backbone.", dtype))
    classifier: nn.Linear = model.decoder.classifier
    case.agree("vocab_size", classifier.out_features)
    loss = UMoEDLoss(recorded_config(case), problem)

    def terms(ours: Terms, outputs: Outputs) -> Mapping[str, Tensor]:
        found = dict.fromkeys(
            # terms of a fusion that the released code has switched off
            ("Tokens_Diversity_it", "Tokens_Similarity_it2i", "Tokens_Similarity_it2t"),
            torch.zeros(()),
        )
        for way in ("i2t", "t2i"):
            raw = ours[f"token_{way}"] * 4 / loss.config.triplet_alpha
            found[f"Tokens_Similarity_{way}"] = raw
        for modality in SHORT:
            raw = ours[f"div_{modality}"] * 3 / loss.config.unif_alpha
            found[f"Tokens_Diversity_{modality[0]}"] = raw
        found["Tokens_Similarity_All"] = ours.token_i2t + ours.token_t2i
        found["Tokens_Diversity_All"] = ours.div_image + ours.div_text
        return found

    names = decoder_names(config.layers)
    return Setup(
        model=model,
        loss=loss,
        names={f"hash.hash_module.{t}": f"model.decoder.{o}" for t, o in names.items()},
        optim=clip_groups(case),
        terms=terms,
        real=model.choices,
        absent=(".logit_scale", *NEVER_TRAINED),
        float32_steps=4,  # as the recordings' README asks: badly conditioned in float32
    )
