"""Captions of a scene: five sentences, or a line of tags.

A caption names only part of a scene, in varying words, so that text and labels agree about as
loosely as in collected data: a kind is named, or described by its looks, or called "an animal".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dataset.creatures.scenes import Scene
from dataset.creatures.world import KINDS

SENTENCES = 5  # captions of a row in sentence style

_Words = tuple[str, ...]

LOOKS: dict[str, dict[str, _Words]] = {
    "body": {
        "round": ("round", "plump"),
        "long": ("long", "stretched"),
        "tall": ("tall", "upright"),
        "boxy": ("boxy", "square"),
    },
    "legs": {
        "0": ("legless", "footless"),
        "2": ("two-legged",),
        "4": ("four-legged",),
        "6": ("six-legged", "many-legged"),
    },
    "ears": {
        "pointed": ("sharp-eared",),
        "round": ("round-eared",),
        "floppy": ("floppy-eared", "drooping-eared"),
    },
    "headgear": {
        "horns": ("horned", "bull-horned"),
        "horn": ("one-horned", "unicorn-like"),
        "antennae": ("feelered",),
    },
    "tail": {"thin": ("thin-tailed",), "bushy": ("bushy-tailed", "fluffy-tailed")},
    "mouth": {
        "beak": ("beaked", "bird-faced"),
        "trunk": ("trunked", "long-nosed"),
        "fangs": ("fanged", "toothy"),
    },
    "eyes": {"one": ("one-eyed", "single-eyed"), "three": ("three-eyed",)},
    "coat": {"striped": ("striped", "banded"), "spotted": ("spotted", "dotted", "speckled")},
    "colour": {
        "red": ("red", "crimson"),
        "amber": ("amber", "golden", "yellow"),
        "green": ("green",),
        "blue": ("blue",),
        "violet": ("violet", "purple"),
        "grey": ("grey", "pale"),
    },
    "wings": {"wings": ("winged",)},
    "back": {"spikes": ("spiky", "prickly")},
    "neck": {"long": ("long-necked",)},
}
"""Adjectives of every option of every trait."""

SALIENT = ("coat", "colour", "headgear", "wings", "mouth", "body", "back", "eyes")
"""The most visible traits; a caption uses others only when a kind has too few of these."""

NOUNS = ("beast", "creature", "animal", "monster", "critter")

PLACE_PHRASES: dict[str, _Words] = {
    "meadow": ("in a meadow", "on the grass", "in a green field"),
    "forest": ("in a forest", "in the woods", "among the trees"),
    "beach": ("on a beach", "by the sea", "on the sand"),
    "snow": ("in the snow", "on a snowy plain", "in winter"),
    "night": ("at night", "under the moon", "in the dark"),
}
THING_PHRASES: dict[str, _Words] = {
    "pond": ("a pond", "a pool", "some water"),
    "rock": ("a rock", "a boulder", "a grey stone"),
    "ball": ("a ball", "a round toy", "a striped ball"),
}
TAGS: dict[str, _Words] = {
    "meadow": ("meadow", "grass", "field"),
    "forest": ("forest", "trees", "woods"),
    "beach": ("beach", "sea", "sand"),
    "snow": ("snow", "winter", "mountain"),
    "night": ("night", "moon", "dark"),
    "pond": ("pond", "water"),
    "rock": ("rock", "stone"),
    "ball": ("ball", "toy"),
}
STRAY_TAGS = ("cute", "nature", "art", "holiday", "favourite", "sunday", "explore", "zoo")

NUMBERS: dict[int, _Words] = {
    1: ("a", "a", "a", "one", "a single"),
    2: ("two", "a pair of", "a couple of"),
    3: ("three", "a group of", "some"),
}
VERBS = ("stand", "rest", "wait", "walk", "play")
POSITIONS = ("near", "beside", "next to", "close to")


def _pick(words: Sequence[str], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]


def _adjectives(kind: str, count: int, rng: np.random.Generator) -> list[str]:
    """Return up to ``count`` adjectives that describe a kind."""
    traits = KINDS[kind]
    known = [
        LOOKS[trait][option]
        for trait in (*SALIENT, "neck", "tail", "legs")
        if (option := getattr(traits, trait)) in LOOKS[trait]
    ]
    strongest = known[: max(count, 5)]
    order = rng.permutation(len(strongest))[:count]
    return [_pick(strongest[i], rng) for i in sorted(order)]


def _herd(kind: str, count: int, rng: np.random.Generator) -> str:
    """Return words for ``count`` animals of a kind: "two spotted mobbits", "a horned beast"."""
    named = rng.uniform() < 0.45
    noun = kind if named else _pick(NOUNS, rng)
    adjectives = _adjectives(kind, int(rng.integers(0, 2) if named else rng.integers(1, 4)), rng)
    words = " ".join([*adjectives, noun if count == 1 else f"{noun}s"])
    number = _pick(NUMBERS[count], rng)
    if number == "a" and words[0] in "aeiou" and not words.startswith(("uni", "one")):
        number = "an"
    return f"{number} {words}"


def _sentence(scene: Scene, rng: np.random.Generator) -> str:
    """Return one sentence about a part of the scene."""
    herds = [herd for herd in scene.herds if rng.uniform() < 0.85] or [scene.herds[0]]
    animals = " and ".join(_herd(kind, count, rng) for kind, count in herds)
    several = len(herds) > 1 or herds[0][1] > 1
    place = _pick(PLACE_PHRASES[scene.place], rng) if scene.place and rng.uniform() < 0.75 else ""
    things = [_pick(THING_PHRASES[thing], rng) for thing in scene.things if rng.uniform() < 0.65]
    neighbors = f"{_pick(POSITIONS, rng)} {' and '.join(things)}" if things else ""
    verb = _pick(VERBS, rng)
    form = int(rng.integers(5))
    if form == 0:
        parts = ["there", "are" if several else "is", animals, neighbors, place]
    elif form == 1:
        parts = [f"a {_pick(('picture', 'photo', 'drawing'), rng)} of", animals, place, neighbors]
    elif form == 2:
        parts = [animals, "are" if several else "is", f"{verb}ing", neighbors, place]
    elif form == 3 and place:
        parts = [place, animals, verb if several else f"{verb}s", neighbors]
    else:
        parts = [animals, verb if several else f"{verb}s", place, neighbors]
    return " ".join(part for part in parts if part)


def sentences(scene: Scene, rng: np.random.Generator) -> tuple[str, ...]:
    """Return five independent sentences about ``scene``, as by five annotators."""
    return tuple(_sentence(scene, rng) for _ in range(SENTENCES))


def tags(scene: Scene, rng: np.random.Generator) -> str:
    """Return one line of tags in random order, "striped horned snow pond"."""
    names = (*filter(None, [scene.place]), *scene.things)
    words = [_pick(TAGS[name], rng) for name in names if rng.uniform() < 0.7]
    for kind, _ in scene.herds:
        words += _adjectives(kind, int(rng.integers(1, 4)), rng)
        if rng.uniform() < 0.45:
            words.append(kind)
    if rng.uniform() < 0.4:
        words.append(_pick(STRAY_TAGS, rng))
    return " ".join(words[i] for i in rng.permutation(len(words)))
