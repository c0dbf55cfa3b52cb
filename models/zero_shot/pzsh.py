r"""PZSH: Proxy Zero-Shot Hashing with Multimodal Fusion via Stable Diffusion.

No publication is known to us; after the code released under this name (of 2025 and 2026).

The features of an image encoder of BLIP are aligned with those that the same encoder, as it was
before training, gives for pseudo-images: images that a diffusion model generated from the class's
name, its attributes and the colours of a training picture. Classes without any picture get
generated images as training rows ("TGI", so the names of unseen classes are used: this is not
inductive zero-shot learning, and metrics.json says so). With c the class token of the encoder, r
its direction, f the direction of the pseudo-image's feature, h = tanh(head(c)), head = Linear(512)
→ ReLU → Linear(K), and m = h of an EMA twin of encoder and head (θ' ← 0.9 θ' + 0.1 θ at every
training step, before it encodes)::

    align  = -(1/B) Σ_i (1/|P_i|) Σ_{j∈P_i} log softmax_j(r_i·f_j / τ),  P_i: in the batch, another
             row than i that shares a label with it; no such row, no summand
    center = BCE of p = softmax_c(√K cos(h, center_c)) against the labels, mean over B·C
    quant  = mean (|h| - 1)²
    proxy  = mean over pairs (i, n) that share a label of log(1 + exp(½(1 - cos(h_i, M_n))))
    L      = align + α [center + λ quant + β 1[epoch ≥ 10] proxy]

M, a memory bank, holds m of every training row as of its last visit and is written before the loss;
rows not visited yet have no labels there and are in no pair. Centres of all classes, seen and
unseen, are drawn from a seed (:func:`random_centers`). Published constants: α, β = 0.5, 1 on AwA2
and 0.1, 0.7 on CUB; λ = 1e-4.

``tgi``, ``freeze_img``, ``freeze_txt``, ``caption`` are switches of the released command line,
which parses them; only ``tgi`` had an effect there, and only in the first release.

Deviations from the released code
    * The twin moves in training only. There it moves with every batch that is evaluated, too, which
      makes it about equal to the encoder after each evaluation: ``twin_moves: always``.
    * Rows whose pseudo-image is not at hand are left out of ``align``, as are columns. Without any
      the term is 0 and metrics.json says so.
    * A frozen encoder leaves ``align`` nothing to train. ``projection=auto`` (ours) then puts a
      linear layer, at first the identity, behind it: c stands for its output above.
    * ``caption`` (ours; the reference reads no caption): the words of a row's pseudo-image, its
      prompt, are encoded by the text tower, and ``align`` is taken against them as well,
      as ``align_text``. ``freeze_txt`` keeps that tower as it is.
    * A frozen encoder has no twin, as its own would always equal it.
    * The epoch is chosen on validation rows (``eval.select``), there on the test queries.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.pairwise import pairwise_cosine, share_label
from common.registry import LOSSES, MODELS
from models.backbones.build import frozen_modalities
from models.backbones.towers import drop_text, freeze_tower
from models.base import (
    Backbone,
    Batch,
    HashLoss,
    HashModel,
    InputRequest,
    Outputs,
    Problem,
    Progress,
    Terms,
)
from models.centers.hash_centers import far_apart
from models.losses.memory_bank import MemoryBank
from models.losses.quantization import quantization_loss
from utils.errors import UserError

PSEUDO, TGI = "pseudo", "tgi"  # see dataset/auxiliary/pseudo_images.py
CENTER_DRAWS = 30
CLAMP = 1e-6  # of probabilities, and in divisors


@dataclasses.dataclass(frozen=True)
class PZSHConfig:
    """Keys of ``model`` with ``name: pzsh``."""

    hidden: int = 512  # of the hash head
    momentum: float = 0.9  # share of itself that the twin keeps in a step
    tgi: bool = True  # train on generated images of unseen classes, where there are any
    freeze_img: bool = False  # as backbone.freeze=image
    freeze_txt: bool = False  # as backbone.freeze=text
    caption: bool = False  # align to the words of pseudo-images as well; ours
    twin_moves: Literal["training", "always"] = "training"  # always: with batches evaluated, too
    projection: Literal["auto", "none", "linear"] = "auto"  # auto: if the encoder is frozen; ours

    def __post_init__(self) -> None:
        if self.hidden < 1:
            raise UserError(f"model.hidden={self.hidden} is not accepted; at least 1 is needed.")
        if not 0 <= self.momentum <= 1:
            raise UserError(
                f"model.momentum={self.momentum} is not accepted; a share, 0 to 1, is needed."
            )


OUTPUTS = ("image_code", "image_momentum", "image_aligned", "pseudo_feature", "caption_feature")


@MODELS.register("pzsh", config=PZSHConfig, provides=OUTPUTS)
class PZSH(HashModel):
    """PZSH: image encoder and hash head with an EMA twin, aligned to pseudo-images."""

    config: PZSHConfig
    modalities = ("image",)

    @classmethod
    def input_request(cls, config: PZSHConfig, modalities: tuple[str, ...]) -> InputRequest:
        """Return what is read: images, pseudo-images of them, and generated rows of unseen classes.

        The text tower encodes the prompts of pseudo-images, with ``caption``.
        """
        switches = {"image": config.freeze_img, "text": config.freeze_txt}
        return InputRequest(
            towers=(*modalities, "text") if config.caption else modalities,
            auxiliary=(PSEUDO,),
            generated_rows=config.tgi,
            frozen=tuple(modality for modality, frozen in switches.items() if frozen),
        )

    def __init__(self, config: PZSHConfig, problem: Problem, backbone: Backbone) -> None:
        super().__init__(config, problem, backbone)
        for modality in self.input_request(config, self.modalities).frozen:
            freeze_tower(backbone, modality)
        width = backbone.widths["image"]
        if config.caption and backbone.widths.get("text", width) != width:
            raise UserError(
                f"model.caption aligns pictures of {width} features to texts of "
                f"{backbone.widths['text']}; choose a backbone with one width for both."
            )
        trains = any(p.requires_grad for p in backbone.parameters())
        moving = trains and "image" not in frozen_modalities(backbone)
        kind = config.projection
        if kind == "auto":
            kind = "none" if moving else "linear"
        self.projection = _identity_layer(width) if kind == "linear" else nn.Identity()
        self.head = nn.Sequential(
            nn.Linear(width, config.hidden), nn.ReLU(), nn.Linear(config.hidden, problem.bits),
            nn.Tanh(),
        )  # fmt: skip
        twin = {"projection": copy.deepcopy(self.projection), "head": copy.deepcopy(self.head)}
        self.twin = nn.ModuleDict(twin)
        if moving:
            encoder = copy.deepcopy(backbone)
            drop_text(encoder)  # the twin encodes images alone
            self.twin["backbone"] = encoder
        self.twin.requires_grad_(False)

    def forward(self, batch: Batch) -> Outputs:
        """Return what the loss compares; in training the twin takes its step first.

        ``image_code``, ``image_momentum`` [B,K] in -1..1, the second without gradient;
        ``image_aligned`` [B,D] of unit length; ``pseudo_feature``, ``caption_feature`` [B,D], rows
        of 0 where there is none.
        """
        raw = self.backbone(batch, "image").pooled
        feature = self.projection(raw)
        if self.training:
            self.update_twin()
        pseudo = batch.auxiliary.get(PSEUDO)
        target = caption = torch.zeros_like(feature)
        if pseudo is not None:
            if pseudo.image_features is not None:
                target = pseudo.image_features.pooled
            text = pseudo.text if pseudo.text_features is None else pseudo.text_features
            if self.config.caption and text is not None:
                caption = self.backbone(pseudo, "text").pooled
        return Outputs(
            image_code=self.head(feature),
            image_momentum=self.momentum_code(batch, raw),
            image_aligned=F.normalize(feature, dim=-1),
            pseudo_feature=target,
            caption_feature=caption,
        )

    def encode(self, batch: Batch, modality: str) -> Tensor:
        """Return h [B,K]."""
        if self.config.twin_moves == "always":
            self.update_twin()
        return self.head(self.projection(self.backbone(batch, modality).pooled))

    @torch.no_grad()
    def momentum_code(self, batch: Batch, raw: Tensor) -> Tensor:
        """Return the twin's code m [B,K]; ``raw`` [B,D]: features of an encoder without twin."""
        twin = self.twin
        if "backbone" in twin:
            raw = twin["backbone"](batch, "image").pooled
        return twin["head"](twin["projection"](raw.detach()))

    @torch.no_grad()
    def update_twin(self) -> None:
        """Move every parameter of the twin towards that of the model."""
        momentum = self.config.momentum
        for name, part in self.twin.items():
            model = dict(self.get_submodule(name).named_parameters())
            twin = dict(part.named_parameters())
            moved: list[Tensor] = list(twin.values())
            if moved:
                torch._foreach_mul_(moved, momentum)
                targets: list[Tensor] = [model[key] for key in twin]
                torch._foreach_add_(moved, targets, alpha=1 - momentum)

    def protocol_notes(self, auxiliary: Mapping[str, str]) -> dict[str, Any]:
        """State what training saw beside the rows of the split."""
        off = "off: no pseudo-images of training rows were at hand (data.generated)"
        tgi = auxiliary.get(TGI, "none" if self.config.tgi else "off (model.tgi=false)")
        return {
            "alignment": f"to {auxiliary[PSEUDO]}" if PSEUDO in auxiliary else off,
            "synthetic_rows_of_unseen_classes": tgi,
            "names_of_unseen_classes_used_in_training": TGI in auxiliary,
        }


def _identity_layer(width: int) -> nn.Linear:
    layer = nn.Linear(width, width)
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


@dataclasses.dataclass(frozen=True)
class PZSHLossConfig:
    """Keys of ``loss`` with ``name: pzsh``."""

    lambda_align: float = 1.0  # 0 leaves the alignment out
    alpha: float = 0.5  # α, of all hashing terms
    beta: float = 1.0  # β, of the proxy term
    lambda_quant: float = 1e-4  # λ
    temperature: float = 0.07  # τ
    proxy_warmup: int = 10  # epochs without the proxy term
    center_seed: int | None = 42  # of the centres' draw; None: by the run's seed

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise UserError(f"loss.temperature={self.temperature} has to be above 0, e.g. 0.07.")


@LOSSES.register("pzsh", config=PZSHLossConfig, needs=OUTPUTS)
class PZSHLoss(HashLoss):
    """PZSH: alignment to pseudo-images, hash centres, and a memory of the twin's codes."""

    config: PZSHLossConfig
    centers: Tensor
    memory_label: Tensor

    def __init__(self, config: PZSHLossConfig, problem: Problem) -> None:
        super().__init__(config, problem)
        seed = config.center_seed
        if seed is None:  # as in the first release, which seeds nothing
            seed = int(torch.randint(2**31, (), generator=problem.generator))
        centers = random_centers(problem.n_classes, problem.bits, seed)
        self.register_buffer("centers", centers)  # [C,K] of ±1
        self.memory = MemoryBank(problem)  # [N,K]
        label = torch.zeros(problem.n_train, problem.n_classes)
        self.register_buffer("memory_label", label)  # [N,C], 0 until a row is visited

    def forward(self, outputs: Outputs, batch: Batch, progress: Progress) -> Terms:
        """Return ``align``, ``align_text``, ``center``, ``quant``, ``proxy``; write the bank."""
        config, code = self.config, outputs.image_code
        with torch.no_grad():
            self.memory.write(batch.index, outputs.image_momentum)
            self.memory_label[batch.index] = batch.label.to(self.memory_label.dtype)
        aligned = [
            self.alignment(outputs.image_aligned, outputs[f"{name}_feature"], batch.label)
            for name in ("pseudo", "caption")
        ]
        proxy = code.new_zeros(())
        if progress.epoch >= config.proxy_warmup and config.beta != 0:
            proxy = self.attraction(code, batch.label)
        return Terms(
            align=config.lambda_align * aligned[0],
            align_text=config.lambda_align * aligned[1],
            center=config.alpha * self.center_loss(code, batch.label),
            quant=config.alpha * config.lambda_quant * quantization_loss(code),
            proxy=config.alpha * config.beta * proxy,
        )

    def alignment(self, aligned: Tensor, target: Tensor, label: Tensor) -> Tensor:
        """Return the contrast of r [B,D] with targets [B,D]; rows of 0 are none."""
        if self.config.lambda_align == 0:
            return aligned.new_zeros(())
        return class_contrast(aligned, target, label, self.config.temperature)

    def center_loss(self, code: Tensor, label: Tensor) -> Tensor:
        """Return the cross-entropy of every class against the softmax of √K cos, of [B,K]."""
        logits = self.centers.shape[1] ** 0.5 * pairwise_cosine(code, self.centers.to(code.dtype))
        probability = logits.softmax(1).clamp(CLAMP, 1 - CLAMP)  # [B,C]
        return F.binary_cross_entropy(probability, label.to(probability.dtype))

    def attraction(self, code: Tensor, label: Tensor) -> Tensor:
        """Return the mean of log(1 + exp(½(1 - cos))) over pairs of codes [B,K] and bank rows."""
        related = share_label(label, self.memory_label).to(code.dtype)  # [B,N]
        cosine = pairwise_cosine(code, self.memory.rows.to(code.dtype))
        return (related * F.softplus((1 - cosine) / 2)).sum() / (related.sum() + CLAMP)


def class_contrast(
    rows: Tensor, targets: Tensor, label: Tensor, temperature: float, *, with_self: bool = False
) -> Tensor:
    """Return the contrast that draws each row to the targets of its class-mates, a scalar.

    Args:
        rows: [B,D].
        targets: [B,D], all 0 where a row has none; such rows and columns do not count.
        label: [B,C] multi-hot.
        temperature: τ.
        with_self: whether a row's own target is one it is drawn to.
    """
    present = targets.detach().abs().amax(1) > 0  # [B]
    logits = F.normalize(rows, dim=1) @ F.normalize(targets, dim=1).mT / temperature  # [B,B]
    # a finite value: the softmax over columns that are all -inf would be NaN
    logits = logits.masked_fill(~present, torch.finfo(logits.dtype).min / 4)
    positives = share_label(label, label).to(rows.dtype) * present * present[:, None]
    if not with_self:
        positives = positives.fill_diagonal_(0)
    weight = positives / (positives.sum(1, keepdim=True) + CLAMP)
    likelihood = torch.where(positives > 0, logits.log_softmax(1), 0)
    return -(weight * likelihood).sum() / present.sum().clamp(min=1)


def random_centers(n_classes: int, bits: int, seed: int) -> Tensor:
    """Return centres [C,K] of ±1, each with ⌊K/2⌋ entries of -1, far apart where that is easy.

    All are drawn again, 30 times at most, until the smallest distance of two exceeds ⌊K/4⌋ and the
    mean is at least K/2; the last draw stands. Row for row those of the released code.
    """
    generator = np.random.default_rng(seed)
    for _ in range(CENTER_DRAWS):
        rows = np.ones((n_classes, bits), np.float32)
        for row in rows:
            row[generator.choice(bits, bits // 2, replace=False)] = -1
        centers = torch.from_numpy(rows)
        if far_apart(centers, bits // 4):
            break
    return centers
