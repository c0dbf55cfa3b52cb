"""Word pieces as PIXEL's release reads them."""

import random

import pytest

from common.config import schema
from models.text.sentence_encoder import EncoderConfig, build_sentence_encoder
from models.text.word_pieces import WordPieces, clean, hide_once, padded
from utils.errors import UserError

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "image", "description", "is", "big",
          "horn", "##ed", "grey", "brown"]  # fmt: skip


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("".join(f"{piece}\n" for piece in PIECES))
    return path


def test_marks_go_and_strokes_become_blanks():
    assert (
        clean("A (Big), horned: #thing!It's grey-brown/red.")
        == "a big horned thingits grey brown red"
    )


def test_the_longest_pieces_are_taken(file):
    pieces = WordPieces(file)
    assert pieces("grey horned zebra") == [12, 10, 11, 1]
    assert (pieces.mask_id, pieces.plain, len(pieces.vocabulary)) == (4, 5, 14)
    assert padded([12], pieces, 7) == ([5, 6, 7, 8, 12, 0, 0], [1, 1, 1, 1, 1, 0, 0])
    assert padded([12], pieces, 3) == ([5, 6, 7], [1, 1, 1])


def test_shares_are_hidden_and_swapped():
    ids = list(range(100, 300))
    once = hide_once(ids, random.Random(3), mask_id=4, vocabulary=50, first=5)
    changed = [i for i, (a, b) in enumerate(zip(ids, once, strict=True)) if a != b]
    masked = [i for i in changed if once[i] == 4]
    assert len(masked) == 24 and len(changed) - len(masked) in range(4)
    assert all(5 <= once[i] < 50 for i in changed if once[i] != 4)
    assert once == hide_once(ids, random.Random(3), mask_id=4, vocabulary=50, first=5)
    assert hide_once([], random.Random(0), 4, 50) == []


def test_a_random_bert_of_that_vocabulary(file, tmp_path):
    words = {"layers": 1, "width": 8, "heads": 2, "vocabulary": str(file)}
    encoder = build_sentence_encoder(schema.build(EncoderConfig, words, "model.text", str), [])
    assert encoder.words.num_embeddings == len(PIECES) and encoder.mask_id == 4
    assert encoder.tokenize("big horned") == [9, 10, 11] and encoder.plain == 5
    (tmp_path / "bad.txt").write_text("the\nimage\n")
    with pytest.raises(UserError, match="bad.txt' lacks .PAD., .UNK., .CLS., .SEP., .MASK.; a"):
        WordPieces(tmp_path / "bad.txt")
    with pytest.raises(UserError, match="nosuch.txt' cannot be read"):
        WordPieces(tmp_path / "nosuch.txt")
