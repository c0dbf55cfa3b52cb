"""Text encoders that take word vectors, so that some may be learned (attribute_sentences.py).

``bert``: a BERT of transformers, from random weights or pretrained ones. ``clip``: the text
transformer of a CLIP that open_clip builds. Both give one vector for each token; nothing is pooled.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from models.backbones.weights import RANDOM, hub_file
from models.text.word_pieces import WordPieces
from utils.errors import MissingWeightsError, UserError

RELEASED_LAYERS = 6  # of PIXEL's BERT, which are run of the twelve it has
PADDING, MASK = "[PAD]", "[MASK]"


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Keys of ``model.text``."""

    kind: Literal["bert", "clip"] = "bert"  # of the encoder
    weights: str = RANDOM  # random; a BERT's folder or name of Hugging Face; a CLIP's file or tag
    vocabulary: str | None = None  # vocab.txt of a random BERT; null: the words of the texts
    model: str = "models/backbones/clip_mini.json"  # of a CLIP: a name of open_clip or a JSON
    layers: int | None = None  # of a BERT, its first; null: 6, or all if it has fewer
    width: int = 768  # of a random BERT
    heads: int = 12  # likewise
    train: bool | None = None  # null: yes, but for a pretrained one under a learned prompt


class SentenceEncoder(nn.Module, ABC):
    """Word vectors [B,L,W] of texts become one vector for each token, [B,L,D].

    Attributes:
        words: the table of word vectors, [V,W].
        width: D.
        limit: the most tokens that it takes.
        begin: ids that have to stand before every text.
        mask_id: id of the mask token, or None where there is none.
        plain: the first id of a word (those before are special ids).
        tokenize: a text → its ids, without special ones.
    """

    words: nn.Embedding
    width: int
    limit: int
    begin: tuple[int, ...] = ()
    mask_id: int | None = None
    plain: int = 0
    tokenize: Callable[[str], list[int]]

    @abstractmethod
    def forward(self, words: Tensor, hidden: Tensor) -> Tensor:
        """Encode word vectors [B,L,W]; ``hidden`` bool [B,L] marks padding."""


class BertSentences(SentenceEncoder):
    """A BERT of transformers without its pooler."""

    def __init__(
        self, network: Any, tokenize: Callable[[str], list[int]], mask_id: int, plain: int
    ) -> None:
        """Wrap a ``BertModel``."""
        super().__init__()
        self.network = network
        self.width = network.config.hidden_size
        self.limit = network.config.max_position_embeddings
        self.tokenize, self.mask_id, self.plain = tokenize, mask_id, plain

    @property
    def words(self) -> nn.Embedding:  # type: ignore[override]
        """The table of word vectors."""
        return self.network.get_input_embeddings()

    def forward(self, words: Tensor, hidden: Tensor) -> Tensor:
        """Encode [B,L,W]."""
        out = self.network(inputs_embeds=words, attention_mask=(~hidden).long())
        return out.last_hidden_state


class ClipSentences(SentenceEncoder):
    """The text transformer of a CLIP: causal attention, final norm, without the projection."""

    def __init__(self, tower: Any) -> None:
        """Wrap open_clip's ``TextTransformer``."""
        from open_clip.tokenizer import SimpleTokenizer

        super().__init__()
        self.tower = tower
        tower.text_projection = None  # belongs to the pooled feature
        self.width = tower.token_embedding.embedding_dim
        self.limit = tower.positional_embedding.shape[0]
        tokenizer = SimpleTokenizer()
        self.begin = (tokenizer.sot_token_id,)
        self.tokenize = tokenizer.encode

    @property
    def words(self) -> nn.Embedding:  # type: ignore[override]
        """The table of word vectors."""
        return self.tower.token_embedding

    def forward(self, words: Tensor, hidden: Tensor) -> Tensor:
        """Encode [B,L,W]; padding comes last, so that causal attention never sees it."""
        length = words.shape[1]
        x = words + self.tower.positional_embedding[:length]
        mask = self.tower.attn_mask
        if mask is not None:
            mask = mask[:length, :length].to(x.dtype)
        return self.tower.ln_final(self.tower.transformer(x, attn_mask=mask))


def build_sentence_encoder(
    config: EncoderConfig, texts: Iterable[str], *, learned_prompt: bool = False
) -> SentenceEncoder:
    """Return the encoder of ``config``.

    Args:
        config: which.
        texts: all texts to be tokenised; their words are the vocabulary of a random BERT.
        learned_prompt: what ``train: null`` depends on.

    Raises:
        UserError: absent weights, or weights of another kind of network.
    """
    if config.kind == "clip":
        encoder: SentenceEncoder = _clip(config)
    elif config.weights == RANDOM:
        encoder = _random_bert(config, texts)
    else:
        encoder = _pretrained_bert(config)
    pretrained = config.weights != RANDOM
    trained = not (learned_prompt and pretrained) if config.train is None else config.train
    return encoder.requires_grad_(trained)


def _random_bert(config: EncoderConfig, texts: Iterable[str]) -> BertSentences:
    from transformers import BertConfig, BertModel

    pieces = WordPieces(config.vocabulary) if config.vocabulary else None
    if config.heads < 1 or config.width < 1 or config.width % config.heads:
        raise UserError(
            f"model.text.heads={config.heads} does not divide model.text.width={config.width}; "
            "give numbers where it does, e.g. 12 and 768."
        )
    words = sorted({word for text in texts for word in text.split()} - {PADDING, MASK})
    known = pieces.vocabulary if pieces else (PADDING, MASK, *words)
    ids = {word: number for number, word in enumerate(known)}
    network = BertModel(
        BertConfig(
            vocab_size=len(ids), hidden_size=config.width, num_attention_heads=config.heads,
            num_hidden_layers=_layers(config, RELEASED_LAYERS), intermediate_size=4 * config.width,
            pad_token_id=ids[PADDING],
        ),
        add_pooling_layer=False,
    )  # fmt: skip
    if pieces:
        return BertSentences(network, pieces, pieces.mask_id, pieces.plain)
    return BertSentences(
        network, lambda text: [ids[word] for word in text.split()], ids[MASK], plain=2
    )


def _pretrained_bert(config: EncoderConfig) -> BertSentences:
    from transformers import AutoConfig, AutoTokenizer, BertModel
    from transformers.utils import logging

    weights = config.weights
    if not Path(weights).expanduser().is_dir() and hub_file(weights, ("config.json",)) is None:
        raise MissingWeightsError(
            f"model.text.weights='{weights}' is neither a folder nor to be had from Hugging Face; "
            "give the folder of a BERT (config.json, model.safetensors, tokenizer files), or "
            f"'{RANDOM}' as in PIXEL's release."
        )
    source = str(Path(weights).expanduser()) if Path(weights).expanduser().is_dir() else weights
    verbosity, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # it would warn of layers that are left out on purpose
    logging.disable_progress_bar()
    try:
        bert = AutoConfig.from_pretrained(source)
        if bert.model_type != "bert":
            raise UserError(
                f"model.text.weights='{weights}' holds a '{bert.model_type}', but a BERT is needed "
                "(model_type 'bert', e.g. bert-base-uncased)."
            )
        bert.num_hidden_layers = _layers(config, bert.num_hidden_layers)
        network = BertModel.from_pretrained(
            source, config=bert, add_pooling_layer=False, use_safetensors=True
        )
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(
            f"model.text.weights='{weights}' cannot be read as a BERT ({reason}); give a folder "
            "with config.json, model.safetensors and tokenizer files."
        ) from error
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()

    def tokenize(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    first = max(tokenizer.all_special_ids) + 1  # BERT's come first, after unused ids for new words
    plain = first if first < bert.vocab_size // 2 else 0
    return BertSentences(network, tokenize, tokenizer.mask_token_id, plain)


def _layers(config: EncoderConfig, available: int) -> int:
    layers = min(RELEASED_LAYERS, available) if config.layers is None else config.layers
    if layers < 1 or (config.weights != RANDOM and layers > available):
        raise UserError(
            f"model.text.layers={layers} is not accepted; 1 to {available} of this BERT's layers "
            "can be taken."
        )
    return layers


def _clip(config: EncoderConfig) -> ClipSentences:
    from models.backbones.open_clip import OpenCLIPConfig, open_clip_backbone

    built: Any = open_clip_backbone(
        OpenCLIPConfig(model=config.model, weights=config.weights), ("text",)
    )
    if not hasattr(built.text, "token_embedding"):
        raise UserError(
            f"model.text.model='{config.model}' has a text encoder of Hugging Face; a CLIP with "
            "OpenAI's text transformer is needed, e.g. ViT-B-32."
        )
    return ClipSentences(built.text)


class LearnedWords(nn.Module):
    """Trained vectors [n,W] of words outside the vocabulary; n may be 0.

    They start as CoOp's, with deviation 0.02.
    """

    vectors: nn.Parameter | None

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        vectors = nn.Parameter(0.02 * torch.randn(count, width)) if count else None
        self.register_parameter("vectors", vectors)

    def forward(self, ids: Tensor, words: nn.Embedding) -> Tensor:
        """Return the vectors of ids [B,L], learned word j having the id V + j, as [B,L,W]."""
        size = words.num_embeddings
        known = words(ids.clamp_max(size - 1))
        if self.vectors is None:
            return known
        learned = self.vectors[(ids - size).clamp_min(0)]
        return torch.where((ids < size)[..., None], known, learned.to(known.dtype))
