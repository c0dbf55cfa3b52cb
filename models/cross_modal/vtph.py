r"""VTPH: Visual-Textual Prompt Hashing.

B. Chen, Z. Wu, Y. Liu, B. Zeng, G. Lu, Z. Zhang. Enhancing Cross-Modal Retrieval via
Visual-Textual Prompt Hashing. IJCAI 2024.

A text is encoded together with a picture and with a caption that a caption model generated from
that picture. The encoder is frozen; its features (p pooled and P tokens of the picture, w and W of
the text, q and Q of the caption) is prompted and re-encoded, and hashed by MITH's heads
(:mod:`models.layers.concept_head`)::

    W̃ = s ⊗ W,  s = softmax over channels of (A p + a)                  "VAP", on every token
    w̃ = w + U₂ dropout(relu(U₁ w + b₁)) + b₂                            "TAP", 512 → 128 → 512
    [p'; P']    = T_i([p; P])                                            transformers of two
    [w'; W'; –] = T_t([w̃; W̃; Q])                                         blocks, nothing masked

and for a text alone: [w'; W'] = T_t([w̃; W]). Code: sign(h + u), as in MITH.

Loss: intra, inter, quant, distill of :mod:`models.losses.concept_loss`, and, with r the refined
pooled features of unit length and A_m the distance of caption and text of row m::

    contrast = ½ [CE(rows of Z) + CE(columns of Z)],  Z_nm = r_i^n · r_t^m / τ_m     weight 50
    τ_m      = 0.07 + γ A_m,   A_m = mean over channels (g_w - g_q)(log g_w - log g_q),   γ = 500
    triplet  = (1/M) Σ_{n≠m} [1 + C_nm - C_nn]₊ + [1 + C_nm - C_mm]₊,  C = cos(w̃_n, q_m)  weight 1

g_w, g_q: softmax over the channels of w and q. The figure of the paper writes the affinity as
Jensen and Shannon's, ``affinity: js``, for which no γ is published. Near-by distributions have a JS
divergence of an eighth of Jeffreys' sum over D channels, so γ = 8·500/D gives the same τ; that is
its default. 500 suits features like CLIP's: of lit_mini's on flickr8k (512 channels of deviation
0.44) two captions of a row have a mean τ of 0.18. clip_mini's on creatures_scenes (128 channels of
1.07) have 2.0, at which the contrast has hardly any gradient; ``loss.gamma=28`` gives 0.18 there.

What a text is encoded with. Training: its picture and the caption of that. Database:
``db_text=paired`` (released) the same; ``text_only`` the text alone, the fair variant, since a
text in a database need not have a picture. Query: an image generated from the text and the caption
of that, if they exist (``main.py generate``); else the text alone, never its own picture. Rows
of ``val``, by which the epoch is selected, are encoded alone, since no images are generated for
them. So a query's text and a database text are encoded differently unless both are alone.
metrics.json says under ``protocol.text_codes`` what was done. Training never encodes a text alone;
where queries are, ``alone_share`` (ours, 0 as released) does so in that share of the batches.

Deviations from the released code
    * Where no captions were generated, a row's own first caption takes their place: the text is
      then compared with itself, and A is 0 where the training caption is that one. The reference
      needs the files.
    * τ is a constant also where the encoder is trained; otherwise the encoder could
      evade the contrast by larger τ.
    * MITH's deviations in the heads. Its projections of concepts, computed there and unused, are
      left out.
    * The number of attention heads is 16 where 16 divides the width, else the largest power of two
      that does.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.registry import LOSSES, MODELS
from models.base import (
    MODALITIES,
    Backbone,
    Batch,
    Features,
    HashModel,
    InputRequest,
    Outputs,
    Problem,
    Progress,
    Terms,
)
from models.layers.concept_head import (
    ConceptFeatures,
    ConceptHead,
    ConceptHeadConfig,
    TransformerBlock,
    common_width,
)
from models.losses.concept_loss import NEEDS, ConceptLoss, ConceptLossConfig, match_entropy
from utils.errors import UserError

HEADS = 16
JEFFREYS_GAMMA = 500.0
POOLED = tuple(f"{m}_pooled" for m in MODALITIES)
TEXTS = ("text_feature", "second_feature", "text_prompted")  # w, q, w̃


@dataclasses.dataclass(frozen=True)
class VTPHConfig(ConceptHeadConfig):
    """Keys of ``model`` with ``name: vtph``, beside those of the heads."""

    prompt_layers: int = 2  # of T_i and T_t
    prompt_heads: int | None = None  # None: 16 if they divide the width
    adapter_reduction: int = 4  # TAP's hidden width is D over this
    adapter_dropout: float = 0.2  # inside the adapter of texts
    db_text: Literal["paired", "text_only"] = "paired"  # text_only: database texts stand alone
    alone_share: float = 0.0  # of training batches whose texts are encoded alone; ours

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, least in (("prompt_layers", 0), ("prompt_heads", 1), ("adapter_reduction", 1)):
            value = getattr(self, key)
            if value is not None and value < least:
                raise UserError(f"model.{key}={value} has to be at least {least}.")
        if not 0 <= self.alone_share <= 1:
            raise UserError(
                f"model.alone_share={self.alone_share} is not accepted; a share of the training "
                "batches, 0 to 1, is needed."
            )
        if not 0 <= self.adapter_dropout < 1:
            raise UserError(
                f"model.adapter_dropout={self.adapter_dropout} is not accepted; 0 or more and less "
                "than 1 is needed."
            )


class TextAdapter(nn.Module):
    """TAP: ``w + U₂ dropout(relu(U₁ w + b₁)) + b₂``."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.down = nn.Linear(width, hidden)
        self.up = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, pooled: Tensor) -> Tensor:
        """Return the adapted features, of the shape of ``pooled`` [B,D]."""
        return pooled + self.up(self.dropout(F.relu(self.down(pooled))))


class Prompts(nn.Module):
    """VAP, TAP and the two transformers that re-encode what they change."""

    def __init__(self, width: int, config: VTPHConfig) -> None:
        super().__init__()
        heads = config.prompt_heads or math.gcd(HEADS, width)
        if width % heads:
            raise UserError(f"model.prompt_heads={heads} does not divide the width {width}.")
        self.gate = nn.Linear(width, width)
        hidden = max(width // config.adapter_reduction, 1)
        self.adapter = TextAdapter(width, hidden, config.adapter_dropout)
        self.transformers = nn.ModuleDict(
            {
                m: nn.Sequential(
                    *(TransformerBlock(width, heads) for _ in range(config.prompt_layers))
                )
                for m in MODALITIES
            }
        )

    def channel_gate(self, image: Features) -> Tensor:
        """Return VAP's weights of the channels [B,D], which sum to 1, from the pooled feature."""
        return self.gate(image.pooled).softmax(-1)

    def image(self, image: Features) -> Features:
        """Re-encode a picture."""
        return self._encode("image", image.pooled, image, None)

    def text(
        self,
        prompted: Tensor,
        text: Features,
        image: Features | None = None,
        caption: Features | None = None,
    ) -> Features:
        """Re-encode a text, gated by a picture and beside the tokens of a caption, or alone.

        ``prompted`` [B,D]: what :attr:`adapter` makes of the text's pooled feature.
        """
        assert text.tokens is not None
        if image is not None:
            text = text._replace(tokens=text.tokens * self.channel_gate(image)[:, None])
        return self._encode("text", prompted, text, caption)

    def _encode(
        self, modality: str, pooled: Tensor, features: Features, caption: Features | None
    ) -> Features:
        assert features.tokens is not None
        parts = [pooled[:, None], features.tokens]
        if caption is not None and caption.tokens is not None:
            parts.append(caption.tokens)
        encoded = self.transformers[modality](torch.cat(parts, 1))
        tokens = encoded[:, 1 : 1 + features.tokens.shape[1]]  # without those of the caption
        return Features(encoded[:, 0], tokens, features.mask)


@MODELS.register(
    "vtph", config=VTPHConfig, provides=("image_code", "text_code", *NEEDS, *POOLED, *TEXTS)
)
class VTPH(HashModel):
    """VTPH (IJCAI 2024): texts prompted by a picture and its generated caption, MITH's heads.

    Under several processes each draws dropout for its own rows, and with ``alone_share`` whether
    its part of a batch is encoded alone; so training ends a little elsewhere than in one, as with
    another seed.
    """

    config: VTPHConfig
    uses_tokens = True
    auxiliary_inputs = ("second", "virtual")

    def __init__(self, config: VTPHConfig, problem: Problem, backbone: Backbone) -> None:
        super().__init__(config, problem, backbone)
        width = common_width(backbone, "VTPH")
        self.prompts = Prompts(width, config)
        self.head = ConceptHead(width, problem.bits, self.modalities, config)

    @classmethod
    def input_request(cls, config: Any, modalities: tuple[str, ...]) -> InputRequest:
        """Return what is read, of an encoder that is frozen, whichever it is."""
        return dataclasses.replace(super().input_request(config, modalities), frozen=modalities)

    def forward(self, batch: Batch) -> Outputs:
        """Return codes of both modalities and what the contrast and the triplet compare.

        ``<m>_code``, ``<m>_pooled_code``, ``<m>_token_code`` [B,K]; ``<m>_pooled`` [B,D] of unit
        length; ``text_feature``, ``second_feature`` [B,D] as the encoder gives them and
        ``text_prompted`` [B,D].
        """
        image, text = self._features(batch, "image"), self._features(batch, "text")
        caption = batch.auxiliary.get("second")
        second = text if caption is None else self._features(caption, "text")
        prompted = self.prompts.adapter(text.pooled)
        share = self.config.alone_share
        alone = self.training and share > 0 and bool(torch.rand(()) < share)
        context = (None, None) if alone else (image, second)
        encoded = {
            "image": self.prompts.image(image),
            "text": self.prompts.text(prompted, text, *context),
        }
        outputs = Outputs(
            text_feature=text.pooled, second_feature=second.pooled, text_prompted=prompted
        )
        for m, features in encoded.items():
            codes = self.head(features, m)
            outputs[f"{m}_code"] = _code(codes)
            outputs[f"{m}_pooled_code"] = codes.pooled_code
            outputs[f"{m}_token_code"] = codes.token_code
            outputs[f"{m}_pooled"] = F.normalize(codes.pooled, dim=-1)
        return outputs

    def encode(self, batch: Batch, modality: str) -> Tensor:
        """Return (h + u)/2, [B,K]; a text is encoded with what the batch brings, see the module."""
        features = self._features(batch, modality)
        if modality == "image":
            encoded = self.prompts.image(features)
        else:
            prompted = self.prompts.adapter(features.pooled)
            encoded = self.prompts.text(prompted, features, *self._context(batch))
        return _code(self.head(encoded, modality))

    def _context(self, batch: Batch) -> tuple[Features | None, Features | None]:
        """Return the features of the picture and of the caption that texts are encoded with."""
        if "virtual" in batch.auxiliary:
            virtual = batch.auxiliary["virtual"]
            return self._features(virtual, "image"), self._features(virtual, "text")
        if "second" in batch.auxiliary and self.config.db_text == "paired":
            second = batch.auxiliary["second"]
            return self._features(batch, "image"), self._features(second, "text")
        return None, None

    def _features(self, batch: Batch, modality: str) -> Features:
        features = self.backbone(batch, modality, tokens=True)
        if features.tokens is None:
            raise UserError(
                f"VTPH prompts token features, but the backbone gives none for {modality}; choose "
                "a backbone with tokens, such as clip_vit_b32."
            )
        return features

    def protocol_notes(self, auxiliary: Mapping[str, str]) -> dict[str, Any]:
        """State what texts were encoded with."""
        paired = "own picture and second caption" if self.config.db_text == "paired" else "alone"
        return {
            "text_codes": {
                "database": paired,
                "query": "painted picture and its caption" if "virtual" in auxiliary else "alone",
            }
        }


def _code(codes: ConceptFeatures) -> Tensor:
    return (codes.pooled_code + codes.token_code) / 2


@dataclasses.dataclass(frozen=True)
class VTPHLossConfig(ConceptLossConfig):
    """Keys of ``loss`` with ``name: vtph``."""

    affinity: Literal["jeffreys_mean", "js"] = "jeffreys_mean"  # released code; paper's figure
    temperature: float = 0.07  # of texts that equal their caption
    gamma: float | None = None  # γ; None: 500, for `js` 8·500/D
    lambda_triplet: float = 1.0  # weight of the triplets
    margin: float = 1.0  # of the triplets

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise UserError(f"loss.temperature={self.temperature} has to be above 0, e.g. 0.07.")
        if self.gamma is not None and self.gamma < 0:
            raise UserError(
                f"loss.gamma={self.gamma} would make temperatures negative; 0 or more is needed."
            )


@LOSSES.register("vtph", config=VTPHLossConfig, needs=(*NEEDS, *POOLED, *TEXTS))
class VTPHLoss(ConceptLoss):
    """VTPH (IJCAI 2024): MITH's terms, a contrast whose temperature knows the text, a triplet."""

    config: VTPHLossConfig

    def forward(self, outputs: Outputs, batch: Batch, progress: Progress) -> Terms:
        """Return MITH's terms and ``triplet``."""
        terms = super().forward(outputs, batch, progress)
        distance = text_triplet(outputs.text_prompted, outputs.second_feature, self.config.margin)
        terms["triplet"] = self.config.lambda_triplet * distance
        return terms

    def contrast(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Return nce of the refined pooled features; each text has a temperature of its own."""
        temperature = self.temperatures(outputs.text_feature, outputs.second_feature)
        return match_entropy(outputs.image_pooled @ outputs.text_pooled.mT / temperature)

    @torch.no_grad()
    def temperatures(self, text: Tensor, second: Tensor) -> Tensor:
        """Return τ [B] of texts [B,D], which grows with their distance to the captions [B,D]."""
        config = self.config
        gamma = config.gamma
        if gamma is None:
            gamma = JEFFREYS_GAMMA
            if config.affinity == "js":
                gamma *= 8 / text.shape[1]
        affinity = jeffreys_mean if config.affinity == "jeffreys_mean" else jensen_shannon
        return config.temperature + gamma * affinity(text, second)


def jeffreys_mean(first: Tensor, second: Tensor) -> Tensor:
    """Return the symmetric KL divergence of two rows' channel softmaxes over D, [B] from [B,D]."""
    p, q = first.log_softmax(-1), second.log_softmax(-1)
    return ((p.exp() - q.exp()) * (p - q)).mean(-1)


def jensen_shannon(first: Tensor, second: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence of two rows' channel softmaxes, [B] from [B,D]."""
    p, q = first.log_softmax(-1), second.log_softmax(-1)
    middle = torch.logaddexp(p, q) - math.log(2)
    return ((p.exp() * (p - middle)).sum(-1) + (q.exp() * (q - middle)).sum(-1)) / 2


def text_triplet(text: Tensor, caption: Tensor, margin: float) -> Tensor:
    """Return the hinge of matching against all other pairs, both ways, over the rows; a scalar.

    Args:
        text: [B,D], prompted.
        caption: [B,D], row n belongs to text n.
        margin: by how much the cosine of a matching pair has to exceed that of any other.
    """
    cosine = F.normalize(text, dim=-1) @ F.normalize(caption, dim=-1).mT  # [B,B]
    matching = cosine.diagonal()
    hinges = F.relu(margin + cosine - matching[:, None]) + F.relu(margin + cosine - matching)
    diagonal = torch.eye(len(cosine), dtype=torch.bool, device=cosine.device)
    return hinges.masked_fill(diagonal, 0).sum() / len(cosine)
