"""Training runs of the methods; :mod:`tests.golden.replay` does the work."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from models.base import Outputs, Terms
from models.cross_modal.dcmht import DCMHT, DCMHTLoss, DCMHTLossConfig, DCMHTModelConfig
from models.cross_modal.dsph import DSPH, DSPHLoss, DSPHLossConfig
from models.layers.heads import LinearTanhConfig
from tests.golden.adapters._common import ATTENTION_HEADS, SHORT
from tests.golden.adapters.losses import TOOLKIT_SIMILARITY
from tests.golden.harness import Case
from tests.golden.replay import (
    Setup,
    clip_groups,
    clip_of,
    problem_of,
    proxy_group,
    trajectory,
)


@trajectory("traj_dcmht")
def dcmht_attention(case: Case, dtype: torch.dtype) -> Setup:
    """DCMHT with the toolkit's attention head and loss.

    "Intra" is image-text, "Inter" a modality with itself.
    """
    config = DCMHTModelConfig(head="attention", attention_heads=case.cfg("num_heads"))
    problem = problem_of(case)
    model = DCMHT(config, problem, clip_of(case, "w_backbone.", dtype))
    case.agree("bn_momentum", model.heads["image"].norm.momentum)
    loss_config = DCMHTLossConfig(
        similarity=TOOLKIT_SIMILARITY[case.cfg("similarity_function")],
        vartheta=case.cfg("vartheta"),
        threshold=case.cfg("threshold"),
        quan_alpha=case.cfg("quan_alpha"),
    )
    loss = DCMHTLoss(loss_config, problem)

    def terms(ours: Terms, outputs: Outputs) -> Mapping[str, Tensor]:
        return {
            "Intra_Positive": ours.pos_it,
            "Intra_Negative": ours.neg_it,
            "Inter_Positive_i2t": ours.pos_ii,
            "Inter_Negative_i2t": ours.neg_ii,
            "Inter_Positive_t2i": ours.pos_tt,
            "Inter_Negative_t2i": ours.neg_tt,
            "Quan_Image": loss.quantization(outputs.image_pairs),
            "Quan_Text": loss.quantization(outputs.text_pairs),
        }

    return Setup(
        model=model,
        loss=loss,
        names=ATTENTION_HEADS,
        optim=clip_groups(case),
        terms=terms,
        real=model.pairs,
    )


@trajectory("traj_dchmt_orig")
def dcmht_select(case: Case, dtype: torch.dtype) -> Setup:
    """DCMHT with the select head and the loss of the first repository.

    Two recorded groups of heads are one group of ours.
    """
    problem = problem_of(case)
    config = DCMHTModelConfig(head="select", hidden=case.cfg("hidden"))
    model = DCMHT(config, problem, clip_of(case, "w_clip.", dtype))
    loss_config = DCMHTLossConfig(
        similarity=case.cfg("similarity_function"),
        power=int(case.cfg("loss_type").removeprefix("l")),
        vartheta=case.cfg("vartheta"),
        threshold=case.cfg("sim_threshold"),
        quan_alpha=0.0,  # the select mode has no quantiser
    )
    names = {}
    for modality in SHORT:
        names[f"{modality}_hash.fc."] = f"model.heads.{modality}.fc."
        names[f"{modality}_hash.hash_list."] = f"model.heads.{modality}.bit_layers."
    return Setup(
        model=model,
        loss=DCMHTLoss(loss_config, problem),
        backbone="clip.",
        names=names,
        columns={"clip.": "backbone", "image_hash.": "head", "text_hash.": "head"},
        optim=clip_groups(case),
        terms=lambda ours, outputs: ours,
        real=model.pairs,
    )


@trajectory("traj_dsph", not_read={"cfg_hypseed": "the initial proxies are recorded"})
def dsph(case: Case, dtype: torch.dtype) -> Setup:
    """DSPH, its proxies under an SGD of their own."""
    problem = problem_of(case)
    config = LinearTanhConfig(dropout=case.cfg("dropout"))
    model = DSPH(config, problem, clip_of(case, "w_backbone.", dtype))
    loss_config = DSPHLossConfig(alpha=case.cfg("alpha"), threshold=case.cfg("threshold"))
    proxies = proxy_group(case)

    def terms(ours: Terms, outputs: Outputs) -> Mapping[str, Tensor]:
        # without α the loss leaves the regulariser out
        return {**{f"reg_{pair}": torch.zeros(()) for pair in ("ii", "tt", "it")}, **ours}

    return Setup(
        model=model,
        loss=DSPHLoss(loss_config, problem),
        names={
            "hash.img_hash.fc.": "model.heads.image.0.",
            "hash.txt_hash.fc.": "model.heads.text.0.",
            "hyp.": "loss.",
        },
        optim={**clip_groups(case), "proxies": proxies},
        terms=terms,
        real=model.encode,
    )
