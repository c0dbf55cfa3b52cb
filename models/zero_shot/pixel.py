r"""PIXEL: Prompt-based Zero-shot Hashing via Visual and Textual Semantic Alignment.

Z. Dong, Q. Long, Y. Zhou, P. Wang, Z. Zhu, X. Luo, Y. Wang, P. Wang, Y. Zhou. CIKM 2024,
pp. 487-496.

A network hashes pictures; while it is trained, a second head of it has to describe the attributes
of the picture's class, and the descriptions of two pictures have to differ as those that a text
encoder gives of the attributes in words. Only u = W x + b on the pooled feature x is needed later;
the code is sign(u).

Picture side: of the feature map, seen as tokens [L,D], a 1x1 convolution makes A maps, one for each
attribute, and a linear layer over the L places makes each an embedding: v ∈ ℝ^{A x E}; the score of
attribute a is e_a = mean of v_a. Text side (:mod:`models.text.attribute_sentences`): sentences
about the class and its attributes, encoded token by token, become t ∈ ℝ^{A x E} by a linear layer
over the width and one over the places. With P the learned centroids of all classes, cos their
cosines to u, a the attribute row of the class, of unit length, n_p the number of pairs i < j, and
v̂, t̂ of unit length for each attribute::

    L_ce  = CE(s (cos - m·1[y]), y)                              (or the arc margin)
    L_reg = mean (e - a_y)²
    L_sd  = 1/n_p Σ_{i<j} [mean((Δv - κ Δt)²) + 1[y_i = y_j]·4·(mean(Δv²) + mean(Δt²))],
            Δv = v̂_i - v̂_j,  Δt = t̂_i - t̂_j,  κ learned
    L     = L_ce + w_semantic L_sd + w_regression L_reg

(w_regression, w_semantic) are (0.4, 3) for AwA2, (0.5, 2.5) for CUB, (0.3, 2) for SUN.

``variant: released`` (of the model, of the loss) repeats two faults of the released code, which
``fixed``, the default, mends:
    * loss: the term of equal classes takes Δv and Δt without the square, so that it has a sign,
      depends on the order of rows, and can fall without end.
    * model: the attribute head (convolution, linear layer over places) is in no optimiser and stays
      as it was drawn.

Ours, in no paper: ``adapter``, ``standardize``, ``prompt: learned``.
    * The attribute losses reach codes only through what both heads stand on. A frozen encoder
      leaves nothing, so ``adapter`` puts a residual two-layer network of that width before both
      heads, the same for the pooled feature and every token (0: none, as released).
    * The released "prompt" is a text by template. ``prompt: learned`` keeps the names of classes
      and attributes and learns the words around them, as CoOp does (arXiv:2109.01134): ``context``
      vectors open the text, as many stand before each attribute's name, others at each level.
      With ``text: {kind: clip}`` they are read by a CLIP's text encoder, which stays as it is.

Deviations from the released code
    * Its text holds the number of the picture, which says nothing of it; ours does not. Sentences
      are separated (theirs fuse at the full stop), and each has its own class's name (theirs for
      SUN have the last picture's).
    * Once at loading, 12 % of the tokens are hidden and 1.5 % replaced by other words (or antonyms
      of WordNet, which are left out), then 10 % hidden at each call: ``mask_once: 0.12, mask_rate:
      0.1``, by the row's number. By default all are drawn anew at each call, from the whole
      vocabulary: ``mask_rate`` 1 - 0.88·0.9 = 0.208, ``swap_rate`` 0.015. In training only.
    * Released sizes are ``text: {layers: 6, width: 768, heads: 12}``, ``text_length: 180``. With
      random weights no vocabulary means anything, so ours has the words of the sentences alone
      unless ``text.vocabulary`` gives BERT's.
    * A batch of one row, which has no pair, has L_sd = 0 instead of a division by zero. A row
      without label is left out of all terms; of several labels the first has the attributes, the
      cross-entropy takes all.
    * Attributes belong to classes by name (the released code sorts AwA2's rows by name beside
      labels in another order): that is the dataset's part. So are splits whose queries stand in no
      other part (theirs do).
    * Left out, since nothing calls them: a transformer decoder, a second convolution, heads that
      restore hidden or replaced words.

As released, the softmax runs over all classes, also those that no training row has: their centroids
are pushed away from everything. Nothing else of them is known to the training, neither names nor
attributes.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.pairwise import share_label
from common.registry import LOSSES, MODELS
from models.base import (
    Backbone,
    Batch,
    HashLoss,
    HashModel,
    Outputs,
    Problem,
    Progress,
    Terms,
    TrainFeatures,
)
from models.layers.heads import Standardize
from models.losses.multilabel import first_label, margin_cosine, multilabel_cross_entropy
from models.losses.pair_terms import masked_mean
from models.text.attribute_sentences import (
    LONGEST,
    SentenceTable,
    class_attributes,
    read_template,
    sentences,
)
from models.text.sentence_encoder import EncoderConfig, LearnedWords, build_sentence_encoder
from models.text.word_pieces import hide_once
from utils.errors import UserError

CLOSEST = 1 - 1e-5  # cosine, of the arc margin
SAME_CLASS = 4.0  # weight of pairs of one class in L_sd
IMAGE_ATTRIBUTES = "image_attributes"
"""Name in ``Batch.extras`` of strengths [B,A] in 0..1 of each picture's own attributes."""


@dataclasses.dataclass(frozen=True)
class PixelConfig:
    """Keys of ``model`` with ``name: pixel``; see the top of ``models/zero_shot/pixel.py``."""

    variant: Literal["fixed", "released"] = "fixed"  # of two faults, see above
    embedding: int = 512  # E
    template: str | None = None  # of sentences; null: the one that covers the attributes
    prompt: Literal["template", "learned"] = "template"  # the words around attributes
    context: int = 4  # learned words, with prompt=learned
    text: EncoderConfig = EncoderConfig()
    text_length: int | None = None  # tokens; null: the longest text of a class, 180 at most
    mask_rate: float = 0.208  # share of words hidden in training, anew at each step
    mask_once: float = 0.0  # share of a row's words hidden at every step; released: 0.12
    swap_rate: float = 0.015  # share replaced by others, at every step the same with mask_once
    adapter: int = 0  # width of the layers before both heads; 0: none
    standardize: bool = False  # features first, by their training statistics; for frozen encoders


class Adapter(nn.Module):
    """x + W₂ relu(W₁ x), the same for a pooled feature and for tokens; starts as the identity."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, width)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Change [...,D]."""
        return x + self.outer(F.relu(self.inner(x)))


class OverBothAxes(nn.Module):
    """A linear layer over the features, then one over the places: [B,L,D] → [B,F,P]."""

    def __init__(self, width: int, length: int, features: int, places: int) -> None:
        super().__init__()
        self.features = nn.Linear(width, features)
        self.places = nn.Linear(length, places)

    def forward(self, x: Tensor) -> Tensor:
        """Change [B,L,D]."""
        return self.places(self.features(x).mT)


@MODELS.register(
    "pixel",
    config=PixelConfig,
    provides=("image_code", "image_attributes", "text_attributes"),
    groups={"text": {}},
)
class PIXEL(HashModel):
    """PIXEL (CIKM 2024): a hash head, and attributes of pictures aligned with those in words.

    Under several processes each draws dropout and the words that it hides or swaps for its own
    rows, so training ends a little elsewhere than in one, as with another seed.
    """

    config: PixelConfig
    modalities = ("image",)
    uses_tokens = True

    def __init__(self, config: PixelConfig, problem: Problem, backbone: Backbone) -> None:
        super().__init__(config, problem, backbone)
        count = class_attributes(problem).shape[1]
        width = backbone.widths["image"]
        self.needs_fit = config.standardize
        self.standardize = Standardize(width) if config.standardize else nn.Identity()
        self.adapter = Adapter(width, config.adapter) if config.adapter else nn.Identity()
        self.hash_head = nn.Linear(width, problem.bits)
        places = backbone.token_counts.get("image", 1)  # without tokens, a map of one place
        map_width = backbone.token_widths["image"] if "image" in backbone.token_counts else width
        if map_width != width and (config.adapter or config.standardize):
            raise UserError(
                f"model.adapter and model.standardize need tokens as wide as the pooled feature, "
                f"but this encoder's are {map_width} and {width}; give model.adapter=0 and "
                "model.standardize=false, or another backbone."
            )
        # the convolution with 1x1 kernel is a linear layer over the features
        self.image_attributes = OverBothAxes(map_width, places, count, config.embedding)
        if config.variant == "released":
            self.image_attributes.requires_grad_(False)
        self._build_text(config, problem, count)

    def _build_text(self, config: PixelConfig, problem: Problem, count: int) -> None:
        if config.prompt == "learned" and config.context < 1:
            raise UserError(
                f"model.context={config.context} leaves nothing to learn; give 1 or more, or "
                "model.prompt=template."
            )
        learned = config.prompt == "learned"
        template = read_template(config.template, problem.attribute_names)
        pieces = sentences(problem, template, config.context if learned else 0)
        self.encoder = build_sentence_encoder(config.text, pieces.texts, learned_prompt=learned)
        table = self.encoder.words
        self.sentences = SentenceTable(
            pieces, problem, self.encoder.tokenize,
            vocabulary=table.num_embeddings, begin=self.encoder.begin, length=config.text_length,
            limit=min(self.encoder.limit, config.text_length or LONGEST), strongest_first=learned,
        )  # fmt: skip
        self.text_seed = problem.generator.initial_seed()
        self.learned = LearnedWords(pieces.learned, table.embedding_dim)
        self.text_attributes = OverBothAxes(
            self.encoder.width, self.sentences.length, config.embedding, count
        )

    def train(self, mode: bool = True) -> PIXEL:
        """Switch to training or evaluation; statistics of batch norms of the encoder never move."""
        super().train(mode)
        for module in self.backbone.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def fit(self, features: TrainFeatures) -> None:
        """Take the training statistics."""
        if isinstance(self.standardize, Standardize):
            self.standardize.fit(features.of("image"))

    def param_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return ``backbone``, ``head`` and, for all of the text side, ``text``."""
        groups = super().param_groups()
        text = {
            parameter
            for module in (self.encoder, self.learned, self.text_attributes)
            for parameter in module.parameters()
        }
        groups["text"] = [p for p in groups["head"] if p in text]
        groups["head"] = [p for p in groups["head"] if p not in text]
        return groups

    def forward(self, batch: Batch) -> Outputs:
        """Return ``image_code`` [B,K], ``image_attributes`` and ``text_attributes`` [B,A,E]."""
        features = self.backbone(batch, "image", tokens=True)
        tokens = features.pooled[:, None] if features.tokens is None else features.tokens
        return Outputs(
            image_code=self.hash_head(self._adapted(features.pooled)),
            image_attributes=self.image_attributes(self._adapted(tokens)),
            text_attributes=self.text_attributes(self.encode_texts(batch)).mT,
        )

    def encode(self, batch: Batch, modality: str) -> Tensor:
        """Return the output of the hash head [B,K]; texts play no part."""
        return self.hash_head(self._adapted(self.backbone(batch, modality).pooled))

    def _adapted(self, x: Tensor) -> Tensor:
        return self.adapter(self.standardize(x))

    def encode_texts(self, batch: Batch) -> Tensor:
        """Return the token vectors [B,L,D] of a text about each row's class and attributes."""
        has_label = (batch.label > 0).any(1)
        index = first_label(batch.label > 0).to(torch.uint8).argmax(1)
        index = torch.where(has_label, index, self.problem.n_classes)
        ids, hidden = self.sentences(index, batch.extras.get(IMAGE_ATTRIBUTES))
        if self.training and self.config.mask_once > 0:
            ids = self._hidden_once(ids, hidden, batch.index)
        words = self.learned(self._noisy(ids, hidden), self.encoder.words)
        return self.encoder(words, hidden)

    def _hidden_once(self, ids: Tensor, hidden: Tensor, index: Tensor) -> Tensor:
        """Return ids [B,L] with what the rows ``index`` [B] have hidden and swapped for good."""
        size, first = self.encoder.words.num_embeddings, self.encoder.plain
        mask_id = self.encoder.mask_id
        if mask_id is None:
            return ids
        changed, begin = ids.clone(), len(self.sentences.opening)
        ends = (~hidden).sum(1).tolist()
        for row, (number, end) in enumerate(zip(index.tolist(), ends, strict=True)):
            kept = hide_once(
                ids[row, begin:end].tolist(), random.Random((self.text_seed << 32) + number),
                mask_id, size, first=first, hidden=self.config.mask_once,
                swapped=self.config.swap_rate,
            )  # fmt: skip
            changed[row, begin:end] = torch.tensor(kept, dtype=ids.dtype, device=ids.device)
        return torch.where((ids >= first) & (ids < size), changed, ids)

    def _noisy(self, ids: Tensor, hidden: Tensor) -> Tensor:
        """Return ids [B,L] of which, in training, some words are hidden and some swapped."""
        if not self.training:
            return ids
        size, first = self.encoder.words.num_embeddings, self.encoder.plain
        word = (ids >= first) & (ids < size) & ~hidden
        chance = torch.rand(ids.shape, device=ids.device)
        replacement = torch.randint(first, size, ids.shape, device=ids.device)
        swap_rate = 0.0 if self.config.mask_once > 0 else self.config.swap_rate
        swapped = torch.where(word & (chance < swap_rate), replacement, ids)
        if self.encoder.mask_id is None:
            return swapped
        masked = word & (chance >= 1 - self.config.mask_rate)
        return swapped.masked_fill(masked, self.encoder.mask_id)

    def protocol_notes(self, auxiliary: Mapping[str, str]) -> dict[str, Any]:
        """State what the training was told of classes."""
        return {
            "class_knowledge": "names and attributes of the trained classes; of the others their "
            "number alone"
        }


@dataclasses.dataclass(frozen=True)
class PixelLossConfig:
    """Keys of ``loss`` with ``name: pixel``; the weights are those for AwA2."""

    variant: Literal["fixed", "released"] = "fixed"  # of two faults, see above
    form: Literal["cosine", "arc"] = "cosine"  # of the margin
    margin: float = 0.2  # m
    scale: float = 10.0  # s
    w_semantic: float = 3.0  # weight of L_sd
    w_regression: float = 0.4  # weight of L_reg


@LOSSES.register(
    "pixel",
    config=PixelLossConfig,
    needs=("image_code", "image_attributes", "text_attributes"),
)
class PixelLoss(HashLoss):
    """PIXEL (CIKM 2024): margin softmax, regression of attributes, semantic distances."""

    config: PixelLossConfig
    attributes: Tensor

    def __init__(self, config: PixelLossConfig, problem: Problem) -> None:
        super().__init__(config, problem)
        centroids = torch.randn(problem.n_classes, problem.bits, generator=problem.generator)
        self.centroids = nn.Parameter(centroids)  # P [C,K]
        self.text_scale = nn.Parameter(torch.ones(1))  # κ
        rows = F.normalize(class_attributes(problem), dim=1)
        self.register_buffer("attributes", rows)  # [C,A]

    def forward(self, outputs: Outputs, batch: Batch, progress: Progress) -> Terms:
        """Return ``cls``, ``semantic`` and ``regression``."""
        label = batch.label.to(outputs.image_code.dtype)
        return Terms(
            cls=self.classification(outputs.image_code, label),
            semantic=self.config.w_semantic
            * self.semantic_distance(outputs.image_attributes, outputs.text_attributes, label),
            regression=self.config.w_regression * self.regression(outputs.image_attributes, label),
        )

    def cosines(self, code: Tensor) -> Tensor:
        """Return the cosines [B,C] of codes [B,K] to the centroids."""
        return F.normalize(code, dim=1) @ F.normalize(self.centroids, dim=1).mT

    def classification(self, code: Tensor, label: Tensor) -> Tensor:
        """Return L_ce."""
        form, margin = self.config.form, self.config.margin
        cosine = margin_cosine(self.cosines(code), label, form, margin, CLOSEST)
        return multilabel_cross_entropy(self.config.scale * cosine, label)

    def regression(self, image: Tensor, label: Tensor) -> Tensor:
        """Return L_reg of embeddings [B,A,E]."""
        target = first_label(label) @ self.attributes.to(label.dtype)  # [B,A]
        error = (image.mean(2) - target).pow(2).mean(1)
        return masked_mean(error, (label > 0).any(1).to(error.dtype))

    def semantic_distance(self, image: Tensor, text: Tensor, label: Tensor) -> Tensor:
        """Return L_sd of embeddings [B,A,E], over pairs of rows that have a label."""
        image, text = F.normalize(image, dim=2), F.normalize(text, dim=2)
        labelled = (label > 0).any(1).to(image.dtype)  # [B]
        pairs = labelled.sum() * (labelled.sum() - 1) / 2
        distance = _sum_of_squares(image - self.text_scale * text, labelled) / image[0].numel()
        first_of_pair = torch.ones(len(labelled), len(labelled), device=labelled.device).triu(1)
        same = share_label(label, label).to(image.dtype) * first_of_pair.to(image.dtype)
        if self.config.variant == "released":
            mean = image.mean((1, 2)) + text.mean((1, 2))  # [B]
            difference = mean[:, None] - mean
        else:
            difference = _mean_squares(image.flatten(1)) + _mean_squares(text.flatten(1))
        return (distance + SAME_CLASS * (same * difference).sum()) / pairs.clamp_min(1)


def _sum_of_squares(rows: Tensor, labelled: Tensor) -> Tensor:
    """Return Σ_{i<j} ‖x_i - x_j‖² of the labelled rows, as n times their squares about the mean."""
    weight = labelled[:, None, None]
    mean = (weight * rows).sum(0) / labelled.sum().clamp_min(1)
    return labelled.sum() * (weight * (rows - mean).pow(2)).sum()


def _mean_squares(rows: Tensor) -> Tensor:
    """Return the mean over entries of (x_i - x_j)² for all pairs of rows [B,D], as [B,B]."""
    squares = rows.pow(2).sum(1)
    return (squares[:, None] + squares - 2 * rows @ rows.mT) / rows.shape[1]
