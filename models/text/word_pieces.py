"""Texts to word pieces as PIXEL's release reads them, and the words it hides when it loads them."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from utils.errors import MissingWeightsError, UserError
from utils.files import check_plain_file

BEGINNING = "the image description is"
HIDDEN_ONCE, SWAPPED_ONCE = 0.12, 0.015
"""Shares of a text's pieces that the release hides, and swaps for others, at loading."""

_DELETED, _BLANKED = re.compile(r"[,.'!\"()*#:;~]"), re.compile(r"[-/]")
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def clean(sentence: str) -> str:
    """Return a sentence in lower case without marks, strokes as blanks.

    >>> clean("It's wing color is probably grey/brown.It is big.")
    'its wing color is probably grey brownit is big'
    """
    return _BLANKED.sub(" ", _DELETED.sub("", sentence.lower()))


class WordPieces:
    """BERT's tokeniser of the words in a vocabulary file.

    Attributes:
        vocabulary: the pieces; a piece's id is its line, from 0.
        mask_id: id of the mask.
        plain: the first id of a word, after all special ones.
    """

    def __init__(self, file: str | Path) -> None:
        """Read ``vocab.txt``, one piece a line.

        Raises:
            UserError: the file cannot be read, or lacks a special piece.
        """
        path = Path(file).expanduser()
        check_plain_file(path)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise MissingWeightsError(
                f"'{path}' cannot be read ({error}); give a BERT's vocab.txt, one piece a line."
            ) from error
        ids = {piece: number for number, piece in enumerate(lines)}
        missing = [piece for piece in _SPECIAL if piece not in ids]
        if missing:
            raise UserError(
                f"'{path}' lacks {', '.join(missing)}; a BERT's vocab.txt, one piece a line, is "
                "needed."
            )
        from transformers import BertTokenizer

        self.vocabulary = tuple(lines)
        self.mask_id = ids["[MASK]"]
        self.plain = 1 + max(ids[piece] for piece in _SPECIAL)
        self._tokenizer = BertTokenizer(str(path))

    def __call__(self, text: str) -> list[int]:
        """Return the ids of a text's pieces, without special ones."""
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])


def hide_once(
    ids: Sequence[int], generator: random.Random, mask_id: int, vocabulary: int, *,
    first: int = 0, hidden: float = HIDDEN_ONCE, swapped: float = SWAPPED_ONCE,
) -> list[int]:  # fmt: skip
    """Return ids of which some are hidden and some swapped, as the release does at loading.

    The positions are shuffled; of the first ones a share is hidden, of the next a share is swapped,
    both rounded down. A swap takes a random word, or every other time the word's antonym: that one
    is the word itself here.

    Args:
        ids: of one text, without its beginning.
        generator: Python's.
        mask_id: what a hidden piece becomes.
        vocabulary: number of ids.
        first: the smallest id that a swap may put in; the release has 0.
        hidden: share hidden.
        swapped: share swapped.
    """
    positions, result = list(range(len(ids))), list(ids)
    generator.shuffle(positions)
    masks, swaps = int(len(ids) * hidden), int(len(ids) * swapped)
    for position in positions[:masks]:
        result[position] = mask_id
    for position in positions[masks : masks + swaps]:
        if generator.random() < 0.5:
            result[position] = generator.choice(range(first, vocabulary))
    return result


def padded(
    ids: Sequence[int], tokenize: Callable[[str], list[int]], length: int
) -> tuple[list[int], list[int]]:
    """Return a text after its fixed beginning, cut or padded with 0, and what is no padding: 1."""
    row = [*tokenize(BEGINNING), *ids][:length]
    padding = length - len(row)
    return row + [0] * padding, [1] * len(row) + [0] * padding
