"""Captions to token ids."""

from __future__ import annotations

import numpy as np

from models.backbones.open_clip import clip_tokenize
from tests.golden.harness import Case, GoldenError, adapter


@adapter("tokenize")
def tokenize(case: Case) -> None:
    """Ids and the mask of padding.

    The reference hides every id 0, thus also a "!" in a caption, whose id is 0; ours hides what
    follows EOS. The masks are compared everywhere but at such a "!", which ours must not hide.
    """
    length = case.cfg("max_words")
    ids, mask = clip_tokenize(length)([str(caption) for caption in case.array("in_captions")])
    case.equal("out_ids", ids)
    recorded = case.array("out_ids")
    inside = np.arange(length) < recorded.argmax(1)[:, None]  # before EOS, the largest id
    literal = inside & (recorded == 0)
    ours = mask.numpy()
    if (ours & literal).any():
        raise GoldenError(f"{case.source}: a literal '!' is hidden as if it were padding")
    case.equal("out_key_padding_mask", ours | literal)
