"""Compose images: one creature among clutter, or a scene of several creatures in a place."""

from __future__ import annotations

import dataclasses

import numpy as np

from dataset.creatures.backdrop import cluttered, draw_place, draw_thing, finish, occlude
from dataset.creatures.drawing import Pose, draw_creature
from dataset.creatures.world import KINDS, PLACES, SCENE_KINDS, THINGS, Traits


def draw_portrait(traits: Traits, rng: np.random.Generator) -> np.ndarray:
    """Return an image of one creature among clutter, uint8 [64,64,3]."""
    canvas = cluttered(rng)
    size = rng.uniform(0.52, 0.9)
    margin = 0.05 + 0.8 * (1 - size) / 2  # a small creature may stand anywhere
    pose = Pose(
        x=0.5 + rng.uniform(-margin, margin),
        y=0.5 + rng.uniform(-margin, margin),
        size=size,
        angle=rng.uniform(-0.4, 0.4),
        mirrored=bool(rng.integers(2)),
        squash=rng.uniform(0.75, 1.0),
    )
    draw_creature(canvas, traits, pose, rng)
    occlude(canvas, rng)
    return finish(canvas, rng, brightness=(0.65, 1.15))


@dataclasses.dataclass(frozen=True)
class Scene:
    """What a scene shows.

    Attributes:
        herds: one or two kinds of creature with the number of each; one to three animals in all.
        place: the background, or "" for one of no particular kind.
        things: the things in it, perhaps none.
    """

    herds: tuple[tuple[str, int], ...]
    place: str
    things: tuple[str, ...]

    @property
    def labels(self) -> set[str]:
        """Names of all classes that the scene carries."""
        return {kind for kind, _ in self.herds} | {self.place} - {""} | set(self.things)


def plan_scene(row: int, rng: np.random.Generator) -> Scene:
    """Return what the scene of ``row`` shows; kinds and places take turns, the rest is drawn.

    Most scenes have no place: were every scene labelled with one of five places, "shares a label"
    would mostly mean "has the same place".
    """
    first = row % len(SCENE_KINDS)
    if rng.uniform() < 0.35:
        second = (first + rng.integers(1, len(SCENE_KINDS))) % len(SCENE_KINDS)
        counts = ((1, 1), (1, 1), (2, 1), (1, 2))[rng.integers(4)]
        herds = [(SCENE_KINDS[first], counts[0]), (SCENE_KINDS[second], counts[1])]
    else:
        herds = [(SCENE_KINDS[first], int(rng.choice([1, 2, 3], p=[0.5, 0.3, 0.2])))]
    things = tuple(thing for thing in THINGS if rng.uniform() < 0.2)
    somewhere = rng.uniform() < 0.4 or row < len(SCENE_KINDS) * len(PLACES)  # all of them early on
    return Scene(tuple(herds), PLACES[row % len(PLACES)] if somewhere else "", things)


def draw_scene(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Return an image of ``scene``, uint8 [64,64,3]."""
    canvas = draw_place(scene.place, rng) if scene.place else cluttered(rng)
    if "pond" in scene.things:
        draw_thing(canvas, "pond", rng)
    animals = [kind for kind, count in scene.herds for _ in range(count)]
    rng.shuffle(animals)
    poses = _poses(len(animals), rng)
    # From far to near, so that nearer animals hide those behind them.
    for kind, pose in sorted(zip(animals, poses, strict=True), key=lambda pair: pair[1].y):
        draw_creature(canvas, KINDS[kind], pose, rng)
    for thing in scene.things:
        if thing != "pond":
            draw_thing(canvas, thing, rng)
    brightness = (0.75, 1.0) if scene.place == "night" else (0.75, 1.15)
    return finish(canvas, rng, brightness)


def _poses(count: int, rng: np.random.Generator) -> list[Pose]:
    """Return poses side by side for ``count`` animals, the nearer the larger."""
    poses = []
    for slot in range(count):
        depth = rng.uniform(0, 1)
        poses.append(
            Pose(
                x=(slot + 0.5) / count + rng.uniform(-0.2, 0.2) / count,
                y=0.5 + 0.16 * depth,
                size=(0.62, 0.5, 0.42)[count - 1] * (0.85 + 0.3 * depth),
                angle=rng.uniform(-0.15, 0.15),
                mirrored=bool(rng.integers(2)),
                squash=rng.uniform(0.8, 1.0),
            )
        )
    return poses
