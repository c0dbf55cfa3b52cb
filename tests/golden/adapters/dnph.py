"""DNPH: its head, its loss, and both recorded training runs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from models.base import Outputs, Problem, Progress, Terms
from models.cross_modal.dnph import DNPH, DNPHLoss, DNPHLossConfig
from models.layers.heads import LinearTanhConfig
from tests.golden.adapters._common import (
    SHORT,
    compare_gradients,
    features_backbone,
    features_batch,
    label_batch,
    load_renamed,
)
from tests.golden.harness import RTOL_HEAD, Case, adapter
from tests.golden.replay import (
    Setup,
    clip_groups,
    clip_of,
    problem_of,
    proxy_group,
    trajectory,
)


class RecordedNoise(DNPHLoss):
    """The loss with recorded random codes [steps,B,K] in place of its own draws."""

    def __init__(self, config: DNPHLossConfig, problem: Problem, noise: Tensor) -> None:
        super().__init__(config, problem)
        self.noise = noise
        self.noise_seed = None  # the recorded state has no counterpart

    def draw_noise(self, rows: int, bits: int, step: int) -> Tensor:
        """Return what was recorded for the step; a smaller batch fills the first rows."""
        return self.noise[step, :rows, :bits]


def summed(terms: Terms, name: str) -> Tensor:
    """Return a term of both modalities."""
    return terms[f"{name}_image"] + terms[f"{name}_text"]


@adapter("dnph_head")
def dnph_head(case: Case) -> None:
    """Codes and classifier logits, in evaluation mode, where dropout does nothing."""
    batch = features_batch(case.tensor("in_img_feat"), case.tensor("in_txt_feat"))
    problem = Problem(case.array("out_img_hash").shape[1], case.array("out_img_pre").shape[1])
    backbone = features_backbone(case.array("in_img_feat").shape[1])
    model = DNPH(LinearTanhConfig(dropout=case.cfg("dropout")), problem, backbone)
    for modality in SHORT:
        load_renamed(model.heads[modality], case.weights(f"w_{modality}_hash."), {"fc.": "0."})
        load_renamed(model.classifiers[modality], case.weights(f"w_{modality}_pre."), {"fc.": ""})
    outputs = model.eval()(batch)
    for modality, short in SHORT.items():
        case.close(f"out_{short}_hash", outputs[f"{modality}_code"], RTOL_HEAD)
        case.close(f"out_{short}_hash", model.encode(batch, modality), RTOL_HEAD)
        case.close(f"out_{short}_pre", outputs[f"{modality}_logits"], RTOL_HEAD)


@adapter("dnph_loss", not_read={"cfg_np_seed_for_noise": "the vectors that it gave are recorded"})
def dnph_loss(case: Case) -> None:
    """All terms with given proxies and random codes, the assignment, and all gradients."""
    outputs = Outputs()
    for modality, short in SHORT.items():
        outputs[f"{modality}_code"] = case.leaf(f"in_{short}_hash")
        outputs[f"{modality}_logits"] = case.leaf(f"in_{short}_pre")
    proxies, label = case.tensor("in_proxies"), case.tensor("in_labels")
    config = DNPHLossConfig(
        margin=case.cfg("mrg"), noise_alpha=case.cfg("noise_alpha"), proxies="trained"
    )
    problem = Problem(proxies.shape[1], len(proxies))
    loss = RecordedNoise(config, problem, case.tensor("in_noise_vectors")[None]).to(proxies.dtype)
    with torch.no_grad():
        loss.proxies.copy_(proxies)
    terms = loss(outputs, label_batch(label), Progress())
    case.close("out_proxy_loss", summed(terms, "proxy"))
    case.close("out_ce", summed(terms, "cls"))
    case.close("out_loss_proxy_plus_ce", summed(terms, "proxy") + summed(terms, "cls"))
    codes = torch.stack([outputs.image_code, outputs.text_code])
    assigned = loss.assigned_noise(codes, step=0)
    for short, code, noise in zip(SHORT.values(), codes, assigned, strict=True):
        case.equal(f"out_assigned_noise_{short}", noise)
        case.close(f"out_noise_{short}", (code * noise).sum(1).mean())
    total = terms.total()
    case.close("out_loss", total)
    compare_gradients(
        case,
        total,
        grad_img_hash=outputs.image_code,
        grad_txt_hash=outputs.text_code,
        grad_img_pre=outputs.image_logits,
        grad_txt_pre=outputs.text_logits,
        grad_proxies=loss.proxies,
    )


def setup(
    case: Case, dtype: torch.dtype, proxies: str, backbone: str, head: str, owner: str
) -> Setup:
    """Return the method with the recorded random codes.

    Args:
        case: the file.
        dtype: of the CLIP.
        proxies: ``frozen`` or ``trained``.
        backbone: recorded prefix of the CLIP.
        head: recorded prefix of heads and classifiers.
        owner: recorded prefix of the proxies.
    """
    problem = problem_of(case)
    model_config = LinearTanhConfig(dropout=case.cfg("dropout"))
    loss_config = DNPHLossConfig(case.cfg("mrg"), case.cfg("noise_alpha"), proxies)
    model = DNPH(model_config, problem, clip_of(case, f"w_{backbone}", dtype))
    names = {f"{owner}proxies": "loss.proxies"}
    for modality in SHORT:
        names[f"{head}{modality}_hash.fc."] = f"model.heads.{modality}.0."
        names[f"{head}{modality}_pre.fc."] = f"model.classifiers.{modality}."
    return Setup(
        model=model,
        loss=RecordedNoise(loss_config, problem, case.tensor("in_noise_vectors")),
        backbone=backbone,
        names=names,
        columns={backbone: "backbone"},
        optim=clip_groups(case),
        terms=lambda ours, outputs: ours,
        real=model.encode,
    )


@trajectory("traj_dnph")
def toolkit(case: Case, dtype: torch.dtype) -> Setup:
    """DNPH as in the authors' toolkit: proxies under an SGD of their own."""
    made = setup(case, dtype, "trained", "backbone.", "hash.", "loss.")
    proxies = proxy_group(case)

    def terms(ours: Terms, outputs: Outputs) -> Mapping[str, Tensor]:
        raw = {f"Noise_{m}": ours[f"noise_{m}"] / -case.cfg("noise_alpha") for m in SHORT}
        entropies = {f"ce_{m}": ours[f"cls_{m}"] for m in SHORT}
        return {"proxy": summed(ours, "proxy"), **entropies, **raw}

    made.columns = {"backbone.": "backbone", "hash.": "head"}
    made.optim = {**clip_groups(case), "proxies": proxies}
    made.terms = terms
    return made


@trajectory("traj_dnph_orig")
def original(case: Case, dtype: torch.dtype) -> Setup:
    """DNPH as in the authors' own repository, where nothing moves the proxies.

    Four recorded groups of heads are one group of ours.
    """
    proxies = "trained" if case.cfg("proxies_trained") else "frozen"
    made = setup(case, dtype, proxies, "clip.", "", "")
    parts = [f"{modality}_{part}." for part in ("hash", "pre") for modality in SHORT]
    made.columns = {"clip.": "backbone", **dict.fromkeys(parts, "head")}
    made.terms = lambda ours, outputs: {
        "proxy_plus_ce": summed(ours, "proxy") + summed(ours, "cls")
    }
    return made
