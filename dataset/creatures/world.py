"""The world of creatures: traits, the fifty kinds, places and things.

The tables below are constants: a dataset's ``seed`` changes the images, never what a kind is.
"""

from __future__ import annotations

import dataclasses

import numpy as np

NONE = "-"
"""The option of a trait that has no attribute: no ears, a plain coat, two eyes."""

TRAITS: dict[str, dict[str, str]] = {
    "body": {
        "round": "round body",
        "long": "long body",
        "tall": "tall body",
        "boxy": "boxy body",
    },
    "legs": {"0": "no legs", "2": "two legs", "4": "four legs", "6": "six legs"},
    "ears": {"pointed": "pointed ears", "round": "round ears", "floppy": "floppy ears"},
    "headgear": {"horns": "two horns", "horn": "one horn", "antennae": "antennae"},
    "tail": {"thin": "thin tail", "bushy": "bushy tail"},
    "mouth": {"beak": "beak", "trunk": "trunk", "fangs": "fangs"},
    "eyes": {"one": "one eye", "three": "three eyes"},
    "coat": {"striped": "striped", "spotted": "spotted"},
    "colour": {
        "red": "red",
        "amber": "amber",
        "green": "green",
        "blue": "blue",
        "violet": "violet",
        "grey": "grey",
    },
    "wings": {"wings": "has wings"},
    "back": {"spikes": "spiky back"},
    "neck": {"long": "long neck"},
}
"""Trait → option → name of its attribute."""

ALWAYS = ("body", "legs", "colour")
"""Traits of which every creature has one option; of the others it may have none."""

ATTRIBUTE_NAMES: tuple[str, ...] = tuple(
    attribute for options in TRAITS.values() for attribute in options.values()
)
"""Names of the A attributes, the columns of :func:`attribute_matrix`."""


@dataclasses.dataclass(frozen=True)
class Traits:
    """The looks of a kind of creature: one option (or :data:`NONE`) of every trait."""

    body: str
    legs: str
    ears: str
    headgear: str
    tail: str
    mouth: str
    eyes: str
    coat: str
    colour: str
    wings: str
    back: str
    neck: str

    def attributes(self) -> np.ndarray:
        """Return the attribute row, float32 [A] of 0/1."""
        return np.array(
            [
                getattr(self, trait) == option
                for trait, options in TRAITS.items()
                for option in options
            ],
            np.float32,
        )

    @classmethod
    def from_attributes(cls, row: np.ndarray) -> Traits:
        """Return the traits that an attribute row [A] describes best (it may be soft).

        Per trait the largest attribute is taken; of an optional trait only if it exceeds 0.5.
        """
        chosen, start = {}, 0
        for trait, options in TRAITS.items():
            values = np.asarray(row[start : start + len(options)])
            start += len(options)
            best = int(values.argmax())
            present = trait in ALWAYS or values[best] > 0.5
            chosen[trait] = list(options)[best] if present else NONE
        return cls(**chosen)


_KINDS = """
name    body  legs ears    headgear tail  mouth eyes  coat    colour wings back   neck
mobbit  round 0    floppy  horns    thin  trunk one   -       green  -     -      long
tarsk   long  6    pointed horns    bushy trunk one   striped red    -     -      -
quillop boxy  4    floppy  -        bushy trunk three spotted blue   wings -      long
zorvin  tall  2    floppy  horns    bushy -     -     spotted violet -     -      -
flumpet long  6    pointed antennae thin  fangs three striped grey   wings -      -
grondel tall  4    -       -        bushy beak  -     -       amber  wings -      -
pindra  round 2    -       -        -     trunk one   -       blue   -     -      -
wobbin  boxy  0    pointed horns    bushy beak  -     spotted red    -     -      -
drazel  long  0    floppy  -        thin  fangs three striped amber  -     -      -
nooli   tall  6    floppy  horns    -     trunk -     -       violet -     spikes -
karumba round 2    floppy  horn     bushy trunk -     spotted grey   -     spikes -
snirp   long  4    floppy  -        bushy beak  -     striped green  -     -      long
velk    boxy  0    round   horn     bushy fangs -     -       violet -     -      -
bombo   round 2    -       -        -     beak  three spotted amber  -     spikes -
trillok boxy  6    floppy  antennae bushy fangs -     striped green  wings -      -
yarvel  long  4    round   -        bushy -     -     spotted blue   -     -      -
hoodle  tall  2    round   -        thin  fangs -     striped red    -     -      -
fennok  round 6    round   horns    thin  -     three -       grey   -     -      -
gribble tall  4    -       horns    -     -     -     -       grey   -     -      -
ostrak  boxy  0    -       horns    thin  beak  -     spotted blue   wings spikes -
lumo    long  4    floppy  -        bushy -     -     striped violet wings spikes -
crandel round 0    -       -        thin  beak  one   striped green  -     spikes long
pippol  boxy  6    pointed -        -     -     one   -       amber  wings spikes -
scurl   tall  2    pointed -        bushy -     -     spotted amber  -     -      long
dorvat  tall  4    floppy  horn     bushy -     one   striped red    -     -      long
munka   round 6    floppy  -        -     -     three -       red    -     -      long
rostle  long  0    round   -        thin  beak  -     spotted green  wings spikes long
vinto   boxy  4    -       horns    thin  beak  three striped grey   wings -      -
blorp   tall  2    -       -        -     -     three spotted blue   -     -      -
chakka  round 0    -       -        bushy -     -     -       violet -     spikes -
tweel   long  2    pointed antennae bushy -     -     spotted red    wings spikes -
garrun  boxy  4    round   -        -     trunk -     -       blue   -     -      long
ploom   round 2    floppy  antennae -     -     -     striped violet wings -      -
iskal   long  6    -       -        bushy trunk -     striped amber  wings -      long
jandar  tall  6    pointed -        thin  -     three spotted green  wings spikes -
nibbin  boxy  0    pointed -        thin  -     one   -       blue   wings -      -
orlo    round 6    round   -        bushy fangs three striped grey   wings -      long
rumpel  long  2    round   -        thin  trunk -     -       amber  -     spikes -
sprock  tall  4    round   antennae -     trunk three spotted violet wings -      long
tazbo   boxy  0    -       -        bushy -     three striped grey   -     -      -
uvo     tall  0    pointed horn     thin  -     -     -       red    -     -      -
wendik  boxy  2    pointed horns    bushy trunk one   spotted blue   -     spikes -
yonka   long  6    floppy  horn     thin  -     three spotted green  -     spikes -
zippel  round 4    -       -        thin  -     one   striped red    -     -      -
arbo    round 0    -       horns    -     beak  three -       green  -     -      -
clommer tall  6    floppy  -        bushy -     three striped amber  wings spikes long
dufflo  boxy  4    floppy  antennae thin  fangs three -       grey   wings spikes -
emlet   tall  2    -       horn     bushy fangs three spotted violet wings -      -
glindo  long  6    -       horn     thin  fangs -     -       amber  -     -      -
hiko    round 4    floppy  horn     bushy trunk one   spotted violet wings spikes long
"""


def _parse(table: str) -> dict[str, Traits]:
    (_, *columns), *rows = (line.split() for line in table.strip().splitlines())
    return {name: Traits(**dict(zip(columns, row, strict=True))) for name, *row in rows}


KINDS: dict[str, Traits] = _parse(_KINDS)
"""The fifty kinds of creatures, by name."""

IMAGE_KINDS: tuple[str, ...] = tuple(KINDS)[:24]
"""Classes of ``creatures_image``."""

SCENE_KINDS: tuple[str, ...] = tuple(KINDS)[:16]
"""Creatures that appear in ``creatures_scenes``."""

SEEN_KINDS = 40
"""In ``creatures_zeroshot`` the first 40 kinds are the seen classes, the last 10 the unseen."""

PLACES: tuple[str, ...] = ("meadow", "forest", "beach", "snow", "night")
"""Backgrounds of ``creatures_scenes``; every scene has one."""

THINGS: tuple[str, ...] = ("pond", "rock", "ball")
"""Things that a scene may contain."""


def attribute_matrix() -> np.ndarray:
    """Return the attributes of all kinds, float32 [50,A] of 0/1."""
    return np.stack([traits.attributes() for traits in KINDS.values()])
