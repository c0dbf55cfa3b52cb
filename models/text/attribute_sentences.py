"""Sentences about attributes: from strengths of named attributes to the token ids of a text.

A text is an opening, a sentence about the class, and one sentence for each attribute that is strong
enough, worded by its strength (``attribute_sentences.yaml``). Every sentence is tokenised once,
when the task is known; the texts of a batch are assembled from the pieces on its device.

Words of a text may be *learned*: positions that hold a trained vector instead of a word of the
vocabulary (CoOp's context). They are numbered from 0 here, and from the vocabulary's
size on among token ids.

Of the classes that training never shows neither names nor attributes are read.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from models.base import Problem
from utils.errors import UserError, unknown_name

TEMPLATES = Path(__file__).with_name("attribute_sentences.yaml")
LONGEST = 180  # tokens, unless a length is configured
EMPTY = -1  # in a table of pieces: no token here

Piece = tuple[str | int, ...]
"""Texts and numbers of learned words, in order."""


@dataclasses.dataclass(frozen=True)
class Template:
    """How attributes of one kind of dataset are worded; see ``attribute_sentences.yaml``."""

    name: str
    opening: str
    about_class: str
    levels: tuple[tuple[float, str], ...]  # (from which strength, hedge), ascending
    forms: tuple[tuple[re.Pattern[str], str], ...]

    def attribute(self, name: str, level: int) -> str:
        """Return the sentence about an attribute at a level, counted from 0.

        >>> read_template("cub", ()).attribute("has_wing_color::blue", 0)
        'its wing color is probably blue'
        """
        match, sentence = self._form(name)
        groups = (readable(group) for group in match.groups())
        return sentence.format(readable(name), *groups, hedge=self.levels[level][1])

    def subject(self, name: str) -> str:
        """Return the content words of a sentence about an attribute.

        >>> read_template("cub", ()).subject("has_wing_color::blue")
        'wing color blue'
        """
        match, _ = self._form(name)
        return " ".join(readable(group) for group in match.groups() or (name,))

    def _form(self, name: str) -> tuple[re.Match[str], str]:
        for pattern, sentence in self.forms:
            match = pattern.fullmatch(name)
            if match:
                return match, sentence
        raise UserError(f"Template '{self.name}' has no form for attribute '{name}'; add one.")


def read_template(choice: str | None, attribute_names: Sequence[str]) -> Template:
    """Return the template called ``choice``, or the first that covers the attributes.

    Raises:
        UserError: no template of that name.
    """
    templates: dict[str, Any] = yaml.safe_load(TEMPLATES.read_text(encoding="utf-8"))
    if choice is None:
        known = set(attribute_names)
        choice = next(name for name, entry in templates.items() if set(entry["known_by"]) <= known)
    elif choice not in templates:
        raise unknown_name("template of attribute sentences (model.template)", choice, templates)
    entry = templates[choice]
    return Template(
        name=choice,
        opening=entry["opening"],
        about_class=entry["class"],
        levels=tuple(sorted((float(start), hedge) for start, hedge in entry["levels"].items())),
        forms=tuple((re.compile(f["match"], re.IGNORECASE), f["say"]) for f in entry["forms"]),
    )


def readable(name: str) -> str:
    """Return the words of a name of a class or attribute, in lower case, without punctuation.

    >>> readable("001.Black_footed_Albatross"), readable("grizzly+bear (old/big)")
    ('black footed albatross', 'grizzly bear old big')
    """
    name = re.sub(r"^\d+\.", "", name.lower())
    return " ".join(re.sub(r"[,.'!\"()*#:;~]", "", re.sub(r"[_+/-]", " ", name)).split())


@dataclasses.dataclass(frozen=True)
class Sentences:
    """All pieces that texts of a task are made of.

    Attributes:
        opening: before everything.
        classes: C + 1 pieces; the last one is for a row without label, as are those of classes
            that are not trained.
        attributes: A rows of one piece per level.
        starts: the strengths at which levels start, ascending.
        learned: how many learned words occur.
    """

    opening: Piece
    classes: tuple[Piece, ...]
    attributes: tuple[tuple[Piece, ...], ...]
    starts: tuple[float, ...]
    learned: int = 0

    @property
    def texts(self) -> list[str]:
        """Every text that a piece holds."""
        pieces = (self.opening, *self.classes, *(p for row in self.attributes for p in row))
        return [part for piece in pieces for part in piece if isinstance(part, str)]


def sentences(problem: Problem, template: Template, context: int = 0) -> Sentences:
    """Return the pieces for a task.

    Args:
        problem: with attributes.
        template: the wording.
        context: 0: as the template words it. Otherwise learned words replace all words of the
            template but the names: ``context`` of them open the text, and as many stand before
            the name of each attribute, others at each level.

    Raises:
        UserError: the task has no attributes.
    """
    names = _attribute_names(problem)
    seen = set(problem.seen_classes or range(problem.n_classes))
    class_names = problem.class_names or tuple(f"class {c}" for c in range(problem.n_classes))
    classes: list[Piece] = []
    for index, name in enumerate(class_names):
        words = readable(name)
        sentence = words if context else template.about_class.format(**{"class": words})
        classes.append((sentence,) if index in seen else ())
    rows: tuple[tuple[Piece, ...], ...]
    if context:
        opening: Piece = tuple(range(context))
        hedges = [
            tuple(range(context * (1 + level), context * (2 + level)))
            for level in range(len(template.levels))
        ]
        rows = tuple(tuple((*hedge, template.subject(name)) for hedge in hedges) for name in names)
    else:
        opening = (template.opening,)
        levels = range(len(template.levels))
        rows = tuple(tuple((template.attribute(name, at),) for at in levels) for name in names)
    return Sentences(
        opening, (*classes, ()), rows, tuple(start for start, _ in template.levels),
        context * (1 + len(template.levels)),
    )  # fmt: skip


def class_attributes(problem: Problem) -> Tensor:
    """Return the task's attributes, float [C,A].

    Raises:
        UserError: there are none.
    """
    if problem.attributes is None or not problem.attributes.shape[1]:
        raise UserError(
            "PIXEL needs the attributes of classes, and this dataset has none; give the table of "
            "them as dataset.class_attributes (dataset=folder), choose a dataset that has them, "
            "e.g. dataset=creatures_zeroshot, or another method."
        )
    return problem.attributes.float()


def _attribute_names(problem: Problem) -> tuple[str, ...]:
    count = class_attributes(problem).shape[1]
    return problem.attribute_names or tuple(f"attribute {a}" for a in range(count))


class SentenceTable(nn.Module):
    """Texts of rows, assembled from tokenised pieces.

    Attributes:
        length: L, tokens of every text; longer ones are cut, shorter ones padded.
    """

    opening: Tensor
    classes: Tensor
    attributes: Tensor
    starts: Tensor
    strengths: Tensor

    def __init__(
        self, pieces: Sentences, problem: Problem, tokenize: Callable[[str], list[int]], *,
        vocabulary: int, begin: Sequence[int] = (), length: int | None = None, limit: int = LONGEST,
        strongest_first: bool = False,
    ) -> None:  # fmt: skip
        """Tokenise all pieces.

        Args:
            pieces: of the task.
            problem: the task.
            tokenize: a text → its ids, without special tokens.
            vocabulary: number of ids; learned word j has the id ``vocabulary + j``.
            begin: ids that stand before everything.
            length: of a text; None takes the longest of any trained class, up to ``limit``.
            limit: the most tokens that the encoder takes.
            strongest_first: stronger attributes first, so that a cut loses the weaker ones.
        """
        super().__init__()

        def ids(piece: Piece) -> list[int]:
            parts = ([vocabulary + p] if isinstance(p, int) else tokenize(p) for p in piece)
            return [token for part in parts for token in part]

        tables = {
            "opening": torch.tensor([*begin, *ids(pieces.opening)], dtype=torch.int64),
            "classes": _padded([ids(piece) for piece in pieces.classes]),
            # level 0 says nothing
            "attributes": torch.stack(
                list(_padded([ids(p) for row in pieces.attributes for p in ((), *row)]).split(
                    len(pieces.starts) + 1
                ))
            ),
            "starts": torch.tensor(pieces.starts),
            "strengths": class_strengths(problem),
        }  # fmt: skip
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)
        self.strongest_first = strongest_first
        self.length = min(limit, self._longest() if length is None else length)
        if self.length < 1:
            raise UserError(f"model.text_length={length}: a text of at least 1 token is needed.")

    def _longest(self) -> int:
        classes = torch.arange(len(self.classes))
        return int((self._tokens(classes, None) != EMPTY).sum(1).max())

    def _tokens(self, index: Tensor, strengths: Tensor | None) -> Tensor:
        """Return all tokens of texts [B,T], absent ones as :data:`EMPTY`."""
        if strengths is None:
            strengths = self.strengths[index]  # [B,A]
        starts = self.starts.to(strengths.dtype)
        level = torch.bucketize(strengths.contiguous(), starts, right=True)
        order = torch.arange(len(self.attributes), device=index.device).expand_as(level)
        if self.strongest_first:
            order = (-level).argsort(dim=1, stable=True)
            level = level.gather(1, order)
        attributes = self.attributes[order, level].flatten(1)  # [B,A*P]
        opening = self.opening.expand(len(index), -1)
        return torch.cat([opening, self.classes[index], attributes], 1)

    def forward(self, index: Tensor, strengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the ids of texts int64 [B,L] and what is padding bool [B,L], whose id is 0.

        Args:
            index: int64 [B], the class of each row, C for none.
            strengths: [B,A] in 0..1, of each row's own picture; None takes those of the classes.
        """
        tokens = self._tokens(index, strengths)
        empty = tokens == EMPTY
        order = empty.to(torch.int8).argsort(dim=1, stable=True)[:, : self.length]
        tokens = tokens.gather(1, order)
        tokens = F.pad(tokens, (0, self.length - tokens.shape[1]), value=EMPTY)
        hidden = tokens == EMPTY
        return tokens.masked_fill(hidden, 0), hidden


def class_strengths(problem: Problem) -> Tensor:
    """Return attributes as shares of the largest of any trained class, float [C+1,A].

    Row C, for rows without label, and the rows of classes that are not trained are 0.
    """
    values = class_attributes(problem)
    seen = torch.zeros(len(values), 1)
    seen[list(problem.seen_classes or range(len(values)))] = 1
    values = (values * seen).clamp_min(0)
    full = values.max()
    return F.pad(values / (full if full > 0 else 1.0), (0, 0, 0, 1))


def _padded(rows: Sequence[list[int]]) -> Tensor:
    """Return lists of ids as int64 [n,P], shorter ones filled with :data:`EMPTY`."""
    width = max((len(row) for row in rows), default=0)
    return torch.tensor(
        [row + [EMPTY] * (width - len(row)) for row in rows], dtype=torch.int64
    ).reshape(len(rows), width)
