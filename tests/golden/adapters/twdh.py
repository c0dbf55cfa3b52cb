"""TwDH: targets, loss, the released training of transforms, and a training run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from common.codes import sign
from models.base import Outputs, Problem, Progress, Terms
from models.centers.twdh_transforms import ReleasedConfig, ReleasedTransform, two_way
from models.cross_modal.twdh import (
    TwDH,
    TwDHLoss,
    TwDHLossConfig,
    TwDHModelConfig,
    likelihood,
    quantization,
)
from models.layers.pair_softmax import pair_softmax
from tests.golden.adapters._common import ATTENTION_HEADS, compare_gradients
from tests.golden.harness import Case, adapter
from tests.golden.replay import (
    NOT_COMPARED,
    NOT_READ,
    Setup,
    clip_groups,
    clip_of,
    compare_trajectory,
    problem_of,
)

ATOL_MATRIX = 2e-3  # of the recordings' README: steps of Adam magnify rounding


class RecordedTies(TwDHLoss):
    """The loss with recorded tie breaks: length → [K], or [steps,K]."""

    def __init__(
        self, config: TwDHLossConfig, problem: Problem, ties: Mapping[int, Tensor]
    ) -> None:
        super().__init__(config, problem)
        self.ties = ties

    def tie_breaks(self, lengths: Sequence[int], progress: Progress) -> list[Tensor]:
        return [self.ties[length].reshape(-1, length)[progress.step] for length in lengths]


@adapter("twdh_center")
def twdh_center(case: Case) -> None:
    """Targets from labels and centres, as ±1 and in two-way form; rows with a label only."""
    centers, label = case.tensor("in_centers"), case.tensor("in_labels")
    classes, bits = centers.shape
    ties = {bits: case.tensor("in_tie_break")}
    loss = RecordedTies(TwDHLossConfig(), Problem(bits, classes), ties)
    outputs = Outputs(long_vote=label.to(centers.dtype) @ centers)
    (target,) = loss.targets(outputs, Progress()).values()
    labelled = label.any(1, keepdim=True)  # our loss leaves the others out
    target = torch.where(labelled, target, case.tensor("out_target_2way"))
    case.equal("out_target_2way", target)
    case.equal("out_target_pm1", target[:, 1::2] - target[:, 0::2])


@adapter("twdh_loss")
def twdh_loss(case: Case) -> None:
    """Terms of long and short codes, total and gradients, with the recorded targets.

    The targets hold random ties; they are compared where the labels' vote is not tied.
    """
    lengths, label = case.cfg("short_dims"), case.tensor("in_labels")
    images, texts = case.leaf("in_img_long"), case.leaf("in_txt_long")
    votes = {"long": label.to(images.dtype) @ case.tensor("in_long_center", images.dtype)}
    for length in lengths:
        centers = case.tensor(f"in_short_center_{length}", images.dtype)
        votes[str(length)] = label.to(images.dtype) @ centers
    targets = {}
    for name, vote in votes.items():
        recorded = case.tensor(f"out_target_{name}")
        decided = (vote != 0).repeat_interleave(2, 1)
        case.equal(f"out_target_{name}", torch.where(decided, two_way(vote.sign()), recorded))
        targets[vote.shape[1]] = recorded
    short = {}
    for name, pairs in (("img", images), ("txt", texts)):
        short[name] = [pair_softmax(pairs @ case.tensor(f"in_trans_{n}")) for n in lengths]
        for length, value in zip(lengths, short[name], strict=True):
            case.close(f"out_{name}_short_{length}", value)
    config = TwDHLossConfig(
        quan_alpha=case.cfg("quan_alpha"),
        low_rate=case.cfg("low_rate"),
        short_bits=tuple(lengths),
    )
    loss = TwDHLoss(config, Problem(lengths[0], label.shape[1]))
    outputs = Outputs(
        image_long_pairs=images,
        text_long_pairs=texts,
        image_short_pairs=torch.cat(short["img"], 1),
        text_short_pairs=torch.cat(short["txt"], 1),
    )
    total = loss.terms(outputs, targets, torch.ones(len(label))).total()
    case.close("out_loss", total)
    compare_gradients(case, total, grad_img=images, grad_txt=texts)
    compare_raw_terms(case, outputs, targets, short)


def compare_raw_terms(
    case: Case, outputs: Outputs, targets: Mapping[int, Tensor], short: Mapping[str, list[Tensor]]
) -> None:
    """Compare cross-entropies and quantisers without their weights."""
    ones = torch.ones(len(outputs.image_long_pairs))
    (_, long_target), *others = targets.items()
    for name, pairs in (("img", outputs.image_long_pairs), ("txt", outputs.text_long_pairs)):
        case.close(f"out_long_bce_{name}", likelihood(pairs, long_target, ones))
        case.close(f"out_long_quan_{name}", quantization(pairs))
    for (length, target), *both in zip(others, *short.values(), strict=True):
        bce = [likelihood(pairs, target, ones) for pairs in both]
        case.close(f"out_short_bce_{length}", torch.stack(bce).mean())
        quan = [quantization(pairs) for pairs in both]
        case.close(f"out_short_quan_{length}", torch.stack(quan).mean())


@adapter("twdh_matrix")
def twdh_matrix(case: Case) -> None:
    """The released training on one batch; the matrix within the tolerance of its README."""
    config = ReleasedConfig(
        lr=case.cfg("lr"),
        weight_decay=case.cfg("weight_decay"),
        warmup=case.cfg("warmup"),
        l1=case.cfg("alpha_l1"),
    )
    long, short = case.tensor("in_long_onehot"), case.tensor("in_short_onehot")
    training = ReleasedTransform(case.tensor("in_matrix0"), case.cfg("steps"), config)
    case.close("out_first_target", pair_softmax(long @ training.matrix))
    total = training.terms(long, short).total()
    compare_gradients(case, total, first_grad_before_clip=training.matrix)
    losses = [training.step(long, short) for _ in range(case.cfg("steps"))]
    found = [[t.quan.item(), t.bce.item(), t.l1.item()] for t in losses]
    case.close("out_losses_quan_bce_l1", found)
    matrix = training.matrix.detach()
    case.close("out_matrix_final", matrix, 0.0, ATOL_MATRIX)
    centers = pair_softmax(two_way(case.tensor("in_long_center")) @ matrix)
    bits = centers[:, 1::2] > centers[:, 0::2]
    case.equal("out_decoded_bits", bits)
    case.equal("out_lossless", bool((bits == (case.tensor("in_short_center") > 0)).all()))


def twdh(case: Case, dtype: torch.dtype) -> tuple[Setup, list[dict[int, Tensor]]]:
    """Return TwDH with the recorded constants and tie breaks, and the list its targets go to."""
    problem, lengths = problem_of(case), case.cfg("short_dims")
    long_bits = case.cfg("long_dim")
    case.agree("bits", long_bits)
    model_config = TwDHModelConfig(
        long_bits=long_bits, short_bits=tuple(lengths), attention_heads=case.cfg("num_heads")
    )
    model = TwDH(model_config, problem, clip_of(case, "w_backbone.", dtype))
    model.long_centers.copy_(case.tensor("in_long_center"))
    for length in lengths:
        model.short_centers(length).copy_(case.tensor(f"in_short_center_{length}"))
        model.set_transform(length, case.tensor(f"in_trans_{length}"))
    ties = {n: case.tensor(f"in_tie_{n}", dtype) for n in (long_bits, *lengths)}
    config = TwDHLossConfig(case.cfg("quan_alpha"), case.cfg("low_rate"), tuple(lengths))
    loss = RecordedTies(config, problem, ties)
    raw = RecordedTies(dataclasses.replace(config, quan_alpha=1.0, low_rate=1.0), problem, ties)
    seen: list[dict[int, Tensor]] = []

    def terms(ours: Terms, outputs: Outputs) -> Mapping[str, Tensor]:
        # all terms without their weights, those that low_rate = 0 leaves out as well
        targets = raw.targets(outputs, Progress(step=len(seen)))
        seen.append(targets)
        found = raw.terms(outputs, targets, torch.ones(len(outputs.long_vote), dtype=dtype))
        named = {}
        for modality in ("image", "text"):
            named[f"Long_NCE_{modality}"] = 2 * found[f"bce_{modality}"]
            named[f"Long_Quan_{modality}"] = 2 * found[f"quan_{modality}"]
        for n in lengths:
            named[f"Short_{n}_NCE"] = found[f"short_bce_{n}"]
            named[f"Short_{n}_Quan"] = found[f"short_quan_{n}"]
        return named

    setup = Setup(
        model=model,
        loss=loss,
        names=ATTENTION_HEADS,
        optim=clip_groups(case),
        terms=terms,
        real=model.long_pairs,
        further=short_outputs(model),
        constants=("model.long_centers", "model.short_centers_", "model.transform_", "loss."),
    )
    return setup, seen


def short_outputs(model: TwDH) -> dict:
    """Return the functions whose results are recorded for every short length."""

    def pairs(length: int):
        return lambda batch, modality: model.short_pairs(model.long_pairs(batch, modality), length)

    def codes(length: int):
        def function(batch, modality):
            model.set_bits(length)
            code = sign(model.encode(batch, modality))
            model.set_bits(model.config.long_bits)
            return code

        return function

    found = {f"short_{n}_real": pairs(n) for n in model.lengths}
    return found | {f"short_{n}_codes": codes(n) for n in model.lengths}


@adapter("traj_twdh", not_compared=NOT_COMPARED, not_read=NOT_READ)
def traj_twdh(case: Case) -> None:
    """Everything but ``logit_scale``, with targets of every step and codes of every length."""
    built = []

    def build(case: Case, dtype: torch.dtype) -> Setup:
        built.append(twdh(case, dtype))
        return built[-1][0]

    compare_trajectory(case, build)
    targets = built[0][1]  # of the replay in the recorded precision
    for length in (case.cfg("long_dim"), *case.cfg("short_dims")):
        ours = np.array(case.array(f"out_target_{length}"))
        for step, found in enumerate(targets):
            code = found[length][:, 1::2] - found[length][:, 0::2]
            ours[step, : len(code)] = code.numpy()  # rows beyond a smaller batch stay as recorded
        case.equal(f"out_target_{length}", ours)
