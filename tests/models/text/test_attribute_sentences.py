"""Sentences about attributes: wording, levels, assembling on tensors, what is never read."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from models.base import Problem
from models.text.attribute_sentences import (
    SentenceTable,
    class_strengths,
    read_template,
    readable,
    sentences,
)
from utils.errors import UserError

NAMES = ("red", "has wings", "four legs")
VALUES = torch.tensor([[1.0, 0.0, 0.6], [0.3, 0.95, 0.1], [1.0, 1.0, 1.0]])
PROBLEM = Problem(
    8, 3, class_names=("big_bird", "Ox", "Unseen-one"), attributes=VALUES, attribute_names=NAMES,
    seen_classes=(0, 1),
)  # fmt: skip


def table_of(problem=PROBLEM, template="creatures", context=0, **keys):
    """Return a table whose ids are the places of words in a list, and that list."""
    pieces = sentences(problem, read_template(template, ()), context)
    words = sorted({word for text in pieces.texts for word in text.split()})

    def tokenize(text):
        return [words.index(word) for word in text.split()]

    return SentenceTable(pieces, problem, tokenize, vocabulary=len(words), **keys), words


def told(table, words, index, strengths=None):
    """Return the texts of rows; learned word j reads <j>."""
    ids, hidden = table(torch.tensor(index), strengths)
    assert ids.shape == hidden.shape == (len(index), table.length)
    return [
        " ".join(words[i] if i < len(words) else f"<{i - len(words)}>" for i in row[~gone].tolist())
        for row, gone in zip(ids, hidden, strict=True)
    ]


def by_loop(values, class_words):
    """Return the text that the rules of the template ``creatures`` make of attribute values."""
    text = ["the image description is"]
    if class_words:
        text.append(f"the animal is called {class_words}")
    forms = ("it is {} red", "it {} has wings", "it {} has four legs")
    for value, form in zip(values, forms, strict=True):
        for start, hedge in ((0.9, "certainly"), (0.5, "probably"), (0.25, "perhaps")):
            if value >= start:
                text.append(form.format(hedge))
                break
    return " ".join(text)


def test_texts_are_those_of_a_loop():
    table, words = table_of()
    wanted = [by_loop(VALUES[0].tolist(), "big bird"), by_loop(VALUES[1].tolist(), "ox")]
    assert told(table, words, [0, 1, 0]) == [wanted[0], wanted[1], wanted[0]]
    assert table.length == max(len(text.split()) for text in wanted)


def test_a_pictures_own_attributes_take_the_place_of_its_class():
    table, words = table_of(length=30)
    own = torch.rand(6, 3, generator=torch.Generator().manual_seed(0))
    found = told(table, words, [0, 1, 0, 1, 0, 1], own)
    names = ("big bird", "ox")
    assert found == [by_loop(row.tolist(), names[i % 2]) for i, row in enumerate(own)]


def test_rows_without_label_and_untrained_classes_say_nothing():
    table, words = table_of()
    assert told(table, words, [3, 2]) == ["the image description is"] * 2
    assert "unseen" not in words and "one" not in words


def test_untrained_classes_do_not_even_decide_the_scale():
    strong = dataclasses.replace(PROBLEM, attributes=VALUES * torch.tensor([[1], [1], [50]]))
    torch.testing.assert_close(class_strengths(strong), class_strengths(PROBLEM))
    per_cent = dataclasses.replace(PROBLEM, attributes=VALUES * 100 - 5 * (VALUES == 0))
    torch.testing.assert_close(class_strengths(per_cent), class_strengths(PROBLEM))


def test_a_cut_text_and_a_padded_one():
    table, words = table_of(length=6)
    assert told(table, words, [0]) == ["the image description is the animal"]
    table, words = table_of(length=50)
    assert table(torch.tensor([0]))[1].sum() == 50 - len(by_loop(VALUES[0], "big bird").split())


def test_the_surest_attributes_first():
    table, words = table_of(strongest_first=True)
    assert told(table, words, [1])[0].endswith("it certainly has wings it is perhaps red")


def test_learned_words_take_the_place_of_all_but_names():
    table, words = table_of(context=2)
    assert told(table, words, [1]) == ["<0> <1> ox <2> <3> red <6> <7> wings"]
    assert words == ["big", "bird", "four", "legs", "ox", "red", "wings"]


def test_what_stands_before_every_text():
    table, words = table_of(begin=(1, 2))
    ids, _ = table(torch.tensor([0]))
    assert ids[0, :2].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (("spiky back", "one horn", "bushy tail", "red"), "creatures"),
        (("newworld", "longneck", "nestspot"), "awa2"),
        (("has_bill_shape::dagger",), "cub"),
        (("man-made", "natural light"), "sun"),
        ((), "general"),
        (("anything",), "general"),
    ],
)
def test_the_template_that_knows_the_attributes(names, chosen):
    assert read_template(None, names).name == chosen


@pytest.mark.parametrize(
    ("template", "name", "level", "text"),
    [
        ("awa2", "longneck", 0, "it is guessing longneck"),
        ("sun", "far-away horizon", 2, "it is definitely far away horizon"),
        ("cub", "has_bill_shape::hooked_(seabird)", 0, "its bill shape is probably hooked seabird"),
        ("general", "HAS_crown_color::Blue", 1, "its crown color is probably blue"),
        ("general", "is_round", 2, "it is certainly round"),
        ("general", "fur", 0, "it goes perhaps with fur"),
        ("creatures", "Striped", 2, "it is certainly striped"),
    ],
)
def test_wording(template, name, level, text):
    assert read_template(template, ()).attribute(name, level) == text


def test_names_become_words():
    assert readable("017.Cardinal") == "cardinal"
    assert readable("a-b/c_d+e") == "a b c d e"
    assert readable("Clark's (big) one!") == "clarks big one"


def test_refusals():
    with pytest.raises(UserError, match="Did you mean 'cub'"):
        read_template("cup", ())
    with pytest.raises(UserError, match="needs the attributes of classes"):
        sentences(Problem(8, 3), read_template("general", ()))
    with pytest.raises(UserError, match="model.text_length=0"):
        table_of(length=0)


def test_without_names_classes_and_attributes_are_numbered():
    problem = Problem(8, 2, attributes=torch.eye(2))
    table, words = table_of(problem, "general")
    assert told(table, words, [1])[0].startswith("the image description is it shows class 1 it")
    assert "attribute" in words
