"""The texts of a run and how they become token ids, in the words of recipes; no data is read."""

from __future__ import annotations

from typing import Any

from common.config.run_config import RunConfig
from dataset.mat import MatConfig
from dataset.preparation.prepared_dataset import PreparedConfig
from dataset.preparation.protocol import Texts
from models.backbones.weights import RANDOM

KEYS = (
    "tokeniser", "text_words", "text_ids", "text_feature_position", "text_source", "text_filter",
    "text_when_none", "caption_train", "caption_eval",
)  # fmt: skip
_START, _END = 49406, 49407
_RANDOM, _FIXED = "random at every access", "fixed"


def describe_texts(config: RunConfig) -> dict[str, Any]:
    """Return the keys of texts of a run, from its configuration alone.

    None: the method reads no text, or it is not known without the data.
    """
    nothing = dict.fromkeys(KEYS)
    if config.model.name == "pixel":
        return nothing | _of_pixel(config)
    if "text_code" not in config.model.entry.provides or not _has_texts(config):
        return nothing
    return nothing | _of_encoder(config) | _of_dataset(config)


def _has_texts(config: RunConfig) -> bool:
    """Tell whether the dataset may have texts."""
    dataset = config.dataset.config
    return not isinstance(dataset, PreparedConfig) or _texts(config) is not None


def _texts(config: RunConfig) -> Texts | None:
    dataset = config.dataset.config
    return dataset.protocol().texts if isinstance(dataset, PreparedConfig) else None


def _of_encoder(config: RunConfig) -> dict[str, Any]:
    """Return vocabulary, length and layout of token ids."""
    if config.backbone.name != "open_clip":
        return {}
    from models.backbones.open_clip import has_clip_texts

    encoder = config.backbone.config
    words = encoder.max_words
    if not has_clip_texts(encoder.model):
        return {"text_words": words}
    return {
        "tokeniser": "CLIP BPE, lower case",
        "text_words": words,
        "text_ids": f"start {_START}, at most {words - 2} tokens, end {_END}, then 0",
        "text_feature_position": "largest id",
    }


def _of_dataset(config: RunConfig) -> dict[str, Any]:
    """Return what a text is made of, and which of several is read."""
    texts, data = _texts(config), config.data
    facts: dict[str, Any] = {}
    several: bool | None = None  # unknown
    if texts is not None:
        several = texts.several
        facts = {
            "text_source": texts.source,
            "text_filter": texts.kept,
            "text_when_none": texts.absent,
        }
    elif isinstance(config.dataset.config, MatConfig):
        facts = {"text_source": f"as in {config.dataset.config.caption_file}"}
    drawn = {"random": {True: _RANDOM, False: _FIXED, None: None}[several], "first": _FIXED}
    trained = drawn[data.captions]
    if data.caption_noise > 0:
        trained = f"{trained}; of {data.caption_noise:.0%} of the rows shuffled among them"
    return facts | {"caption_train": trained, "caption_eval": drawn[data.eval_captions]}


def _of_pixel(config: RunConfig) -> dict[str, Any]:
    """Return the texts that PIXEL makes from attributes."""
    model = config.model.config
    text = model.text
    pieces = text.kind == "bert" and (text.weights != RANDOM or text.vocabulary is not None)
    own = "words of the texts" if text.kind == "bert" else "CLIP BPE, lower case"
    if model.mask_once > 0:
        hidden = (
            f"{_FIXED}; {_share(model.mask_once)} of tokens masked and {_share(model.swap_rate)} "
            f"replaced once at loading, every other token masked with {model.mask_rate:g} at every "
            "loss"
        )
    else:
        hidden = (
            f"{_share(model.mask_rate)} of tokens masked and {_share(model.swap_rate)} replaced at "
            "every loss"
        )
    return {
        "tokeniser": "BERT word pieces (bert-base-uncased vocabulary)" if pieces else own,
        "text_words": model.text_length,
        "text_source": "sentences made from attributes, one string a picture",
        "text_filter": "none",
        "text_when_none": "cannot occur",
        "caption_train": hidden,
        "caption_eval": "not used for codes",
    }


def _share(share: float) -> str:
    """Return a share in per cent.

    >>> _share(0.12), _share(0.015)
    ('12 %', '1.5 %')
    """
    return f"{100 * share:g} %"
