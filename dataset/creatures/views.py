"""The three generated datasets: single label, zero-shot with attributes, captioned scenes.

They need no download and are generated in seconds. A class is defined by structure (body, legs,
horns, coat, ...) under varying pose, light, clutter and noise, so that methods differ on them.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from common.registry import DATASETS
from dataset.base import ArrayImages, HashDataset
from dataset.creatures.captions import sentences, tags
from dataset.creatures.scenes import draw_portrait, draw_scene, plan_scene
from dataset.creatures.store import View, load_view
from dataset.creatures.world import (
    ATTRIBUTE_NAMES,
    IMAGE_KINDS,
    KINDS,
    PLACES,
    SCENE_KINDS,
    SEEN_KINDS,
    THINGS,
    Traits,
    attribute_matrix,
)
from dataset.splits import SplitConfig, make_split
from utils.errors import UserError, nearest

CAPTION_STYLES = ("sentences", "tags")


@dataclasses.dataclass(frozen=True)
class CreaturesConfig:
    """Keys of ``creatures_image``.

    Attributes:
        seed: of the pictures; another seed gives other pictures of the same classes.
        rows: number of pictures.
        split: 20 query and 100 training rows per class; database = all that are no query.
    """

    seed: int = 0
    rows: int = 4800
    split: SplitConfig = SplitConfig(rule="per_class", seed=0, query=20, train=100)


@dataclasses.dataclass(frozen=True)
class CreaturesZeroshotConfig:
    """Keys of ``creatures_zeroshot``.

    Attributes:
        seed: of the pictures; another seed gives other pictures of the same classes.
        rows: number of pictures.
        split: 70 training rows per seen class, 20 query rows per unseen class; database = the rest.
    """

    seed: int = 0
    rows: int = 5000
    split: SplitConfig = SplitConfig(
        rule="seen_unseen", seed=0, query=20, train=70, train_in_database=False
    )


@dataclasses.dataclass(frozen=True)
class CreaturesScenesConfig:
    """Keys of ``creatures_scenes``.

    Attributes:
        seed: of the pictures; another seed gives other pictures of the same classes.
        rows: number of scenes.
        captions: ``sentences`` (five per scene, as COCO) or ``tags`` (one line, as Flickr25K).
        split: 500 query and 4,000 training rows; database = all that are no query.
    """

    seed: int = 0
    rows: int = 5000
    captions: str = "sentences"
    split: SplitConfig = SplitConfig(rule="permutation", seed=0, query=500, train=4000)


def _portraits(name: str, number: int, kinds: tuple[str, ...]) -> View:
    """Return the view whose row r shows one creature of kind r mod C."""
    return View(
        name=name,
        number=number,
        class_names=kinds,
        image=lambda row, rng: draw_portrait(KINDS[kinds[row % len(kinds)]], rng),
        labels=lambda row, rng: {kinds[row % len(kinds)]},
    )


IMAGE = _portraits("creatures_image", 1, IMAGE_KINDS)
ZEROSHOT = _portraits("creatures_zeroshot", 2, tuple(KINDS))


def _scene(row: int, rng: np.random.Generator) -> np.ndarray:
    return draw_scene(plan_scene(row, rng), rng)


def _captions(
    row: int, rng: np.random.Generator, words: np.random.Generator
) -> dict[str, tuple[str, ...]]:
    scene = plan_scene(row, rng)
    return {"sentences": sentences(scene, words), "tags": (tags(scene, words),)}


SCENES = View(
    name="creatures_scenes",
    number=3,
    class_names=(*SCENE_KINDS, *PLACES, *THINGS),
    image=_scene,
    labels=lambda row, rng: plan_scene(row, rng).labels,
    captions=_captions,
)
# Kinds and places take turns, so every class but the things occurs within this many rows.
SCENES_CYCLE = len(SCENE_KINDS) * len(PLACES)


@DATASETS.register("creatures_image", config=CreaturesConfig)
def creatures_image(config: CreaturesConfig, name: str) -> HashDataset:
    """Generated drawings of 24 kinds of imaginary animals, one per picture."""
    rows = load_view(IMAGE, config.seed, config.rows, min_rows=len(IMAGE_KINDS))
    return HashDataset(
        name=name,
        images=ArrayImages(rows.images, rows.fingerprint),
        labels=rows.labels,
        class_names=IMAGE_KINDS,
        multi_label=False,
        split=make_split(config.split, rows.labels),
    )


@DATASETS.register("creatures_zeroshot", config=CreaturesZeroshotConfig)
def creatures_zeroshot(config: CreaturesZeroshotConfig, name: str) -> HashDataset:
    """Generated drawings of 40 seen and 10 unseen kinds of animals with named attributes."""
    rows = load_view(ZEROSHOT, config.seed, config.rows, min_rows=len(KINDS))
    seen = tuple(range(SEEN_KINDS))
    return HashDataset(
        name=name,
        images=ArrayImages(rows.images, rows.fingerprint),
        labels=rows.labels,
        class_names=tuple(KINDS),
        multi_label=False,
        split=make_split(config.split, rows.labels, seen),
        attributes=attribute_matrix(),
        attribute_names=ATTRIBUTE_NAMES,
        seen_classes=seen,
    )


@DATASETS.register("creatures_scenes", config=CreaturesScenesConfig)
def creatures_scenes(config: CreaturesScenesConfig, name: str) -> HashDataset:
    """Generated scenes of one to three animals in a place, 24 labels, with captions or tags."""
    if config.captions not in CAPTION_STYLES:
        raise UserError(
            f"dataset.captions={config.captions}: accepted are {' and '.join(CAPTION_STYLES)}."
            f"{nearest(config.captions, CAPTION_STYLES)}"
        )
    rows = load_view(SCENES, config.seed, config.rows, min_rows=SCENES_CYCLE)
    return HashDataset(
        name=name,
        images=ArrayImages(rows.images, rows.fingerprint),
        labels=rows.labels,
        class_names=SCENES.class_names,
        multi_label=True,
        split=make_split(config.split, rows.labels),
        texts=rows.captions[config.captions],
    )


def render_class_images(attributes: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draw new images of a class from its attributes alone, uint8 [count,64,64,3].

    Args:
        attributes: the class's row [A] of :func:`~dataset.creatures.world.attribute_matrix`, or a
            soft estimate of it; the nearest possible creature is drawn.
        count: how many images.
        seed: of the images.

    Raises:
        UserError: the row has another length than there are attributes.
    """
    row = np.asarray(attributes)
    if row.shape != (len(ATTRIBUTE_NAMES),):
        raise UserError(
            f"An attribute row of a creature has {len(ATTRIBUTE_NAMES)} values, "
            f"but its shape is {row.shape}."
        )
    traits = Traits.from_attributes(row)
    # 0: no view has this number, so no dataset of any seed holds one of these images.
    generators = (np.random.default_rng([seed, 0, index]) for index in range(count))
    images = [draw_portrait(traits, rng) for rng in generators]
    return np.stack(images) if images else np.empty((0, 64, 64, 3), np.uint8)
