"""Everything in an image but the creatures: backgrounds, clutter, things, light and noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from dataset.creatures.drawing import CANVAS, OVERSAMPLING, SIZE, Color, hsv

Rng = np.random.Generator


def random_color(rng: Rng, saturation: tuple[float, float], value: tuple[float, float]) -> Color:
    """Return a colour of any hue within the given ranges of saturation and brightness (0..1)."""
    return hsv(rng.uniform(), rng.uniform(*saturation), rng.uniform(*value))


def gradient(top: Color, bottom: Color) -> Image.Image:
    """Return a canvas that fades from ``top`` to ``bottom``."""
    mix = np.linspace(0, 1, CANVAS, dtype=np.float32)[:, None]
    column = (1 - mix) * np.array(top, np.float32) + mix * np.array(bottom, np.float32)
    pixels = np.broadcast_to(column[:, None], (CANVAS, CANVAS, 3)).astype(np.uint8)
    return Image.fromarray(pixels)


def disc(draw: ImageDraw.ImageDraw, x: float, y: float, rx: float, ry: float, fill: Color) -> None:
    """Fill an upright ellipse; positions and radii in fractions of the image."""
    box = [(x - rx) * CANVAS, (y - ry) * CANVAS, (x + rx) * CANVAS, (y + ry) * CANVAS]
    draw.ellipse(box, fill=fill)


def polygon(draw: ImageDraw.ImageDraw, points: list[tuple[float, float]], fill: Color) -> None:
    """Fill a polygon whose corners are fractions of the image."""
    draw.polygon([(x * CANVAS, y * CANVAS) for x, y in points], fill=fill)


# ---- clutter of single-creature images


def cluttered(rng: Rng) -> Image.Image:
    """Return a canvas with a sky and a ground of random colours and random shapes all over it."""
    sky = random_color(rng, (0.05, 0.7), (0.25, 1.0))
    canvas = gradient(sky, random_color(rng, (0.05, 0.7), (0.25, 1.0)))
    draw = ImageDraw.Draw(canvas)
    left, right = rng.uniform(0.45, 0.95, 2)
    ground = random_color(rng, (0.1, 0.8), (0.2, 0.95))
    polygon(draw, [(0, left), (1, right), (1, 1), (0, 1)], ground)
    for _ in range(rng.integers(4, 11)):
        _stray_shape(draw, rng, size=(0.05, 0.24))
    return canvas


def occlude(canvas: Image.Image, rng: Rng) -> None:
    """Put up to three small shapes in front of the creature."""
    draw = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(0, 4)):
        _stray_shape(draw, rng, size=(0.03, 0.11))


def _stray_shape(draw: ImageDraw.ImageDraw, rng: Rng, size: tuple[float, float]) -> None:
    """Draw an ellipse, a bar, a triangle or a row of stripes somewhere."""
    x, y = rng.uniform(0, 1, 2)
    rx, ry = rng.uniform(*size, 2)
    fill = random_color(rng, (0.1, 0.95), (0.2, 1.0))
    shape = rng.integers(4)
    if shape == 0:
        disc(draw, x, y, rx, ry, fill)
    elif shape == 1:
        angle = rng.uniform(0, np.pi)
        dx, dy = 2 * rx * np.cos(angle), 2 * rx * np.sin(angle)
        ends = [(x - dx) * CANVAS, (y - dy) * CANVAS, (x + dx) * CANVAS, (y + dy) * CANVAS]
        draw.line(ends, fill=fill, width=int(rng.integers(2, 7)))
    elif shape == 2:
        corners = rng.uniform(-1, 1, (3, 2)) * max(rx, ry) + [x, y]
        polygon(draw, [(float(cx), float(cy)) for cx, cy in corners], fill)
    else:
        for step in range(3):
            left = x + step * rx * 0.5
            right, top, bottom = left + 0.2 * rx, y - ry, y + ry
            polygon(draw, [(left, top), (right, top), (right, bottom), (left, bottom)], fill)


# ---- places and things of scenes


def _meadow(rng: Rng, horizon: float) -> Image.Image:
    sky = hsv(0.56 + rng.uniform(-0.03, 0.03), rng.uniform(0.25, 0.55), rng.uniform(0.8, 1.0))
    canvas = gradient(sky, (235, 240, 245))
    draw = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(0, 3)):
        x, y = rng.uniform(0, 1), rng.uniform(0.05, 0.25)
        for shift in (-0.07, 0, 0.07):
            disc(draw, x + shift, y, 0.08, 0.045, (250, 250, 250))
    green = hsv(rng.uniform(0.22, 0.34), rng.uniform(0.45, 0.75), rng.uniform(0.5, 0.8))
    disc(draw, rng.uniform(0.2, 0.8), 1.35 * horizon, 0.9, 0.5 * horizon, green)
    polygon(draw, [(0, horizon), (1, horizon), (1, 1), (0, 1)], green)
    for _ in range(rng.integers(6, 16)):
        x, y = rng.uniform(0, 1), rng.uniform(horizon, 1)
        disc(draw, x, y, 0.015, 0.015, random_color(rng, (0.3, 0.9), (0.8, 1.0)))
    return canvas


def _forest(rng: Rng, horizon: float) -> Image.Image:
    canvas = gradient(hsv(0.4, 0.25, rng.uniform(0.5, 0.9)), hsv(0.35, 0.4, rng.uniform(0.4, 0.6)))
    draw = ImageDraw.Draw(canvas)
    soil = hsv(rng.uniform(0.08, 0.25), rng.uniform(0.35, 0.6), rng.uniform(0.25, 0.45))
    polygon(draw, [(0, horizon), (1, horizon), (1, 1), (0, 1)], soil)
    for _ in range(rng.integers(5, 9)):
        x, foot = rng.uniform(0, 1), horizon + rng.uniform(0, 0.12)
        crown = hsv(rng.uniform(0.28, 0.42), rng.uniform(0.5, 0.8), rng.uniform(0.22, 0.5))
        trunk = [(x - 0.02, 0.2), (x + 0.02, 0.2), (x + 0.025, foot), (x - 0.025, foot)]
        polygon(draw, trunk, hsv(0.07, 0.5, 0.3))
        for tier in (0.12, 0.26, 0.4):
            width = 0.08 + 0.2 * tier
            polygon(
                draw, [(x, tier - 0.16), (x - width, tier + 0.1), (x + width, tier + 0.1)], crown
            )
    return canvas


def _beach(rng: Rng, horizon: float) -> Image.Image:
    canvas = gradient(hsv(0.55, rng.uniform(0.2, 0.5), 0.97), (250, 240, 220))
    draw = ImageDraw.Draw(canvas)
    disc(draw, rng.uniform(0.1, 0.9), 0.13, 0.07, 0.07, (255, 235, 140))
    sea = hsv(rng.uniform(0.5, 0.6), rng.uniform(0.5, 0.8), rng.uniform(0.6, 0.85))
    shore = horizon + rng.uniform(0.05, 0.12)
    polygon(draw, [(0, horizon - 0.1), (1, horizon - 0.1), (1, shore), (0, shore)], sea)
    sand = hsv(rng.uniform(0.1, 0.13), rng.uniform(0.25, 0.45), rng.uniform(0.8, 0.95))
    waves = [(x / 8, shore + 0.02 * (-1) ** x) for x in range(9)]
    polygon(draw, [*waves, (1, 1), (0, 1)], sand)
    return canvas


def _snow(rng: Rng, horizon: float) -> Image.Image:
    canvas = gradient(hsv(0.6, rng.uniform(0.1, 0.3), rng.uniform(0.6, 0.85)), (225, 230, 240))
    draw = ImageDraw.Draw(canvas)
    x = rng.uniform(0.1, 0.9)
    polygon(draw, [(x - 0.45, horizon), (x, 0.12), (x + 0.45, horizon)], hsv(0.6, 0.15, 0.55))
    polygon(draw, [(x - 0.12, 0.25), (x, 0.12), (x + 0.12, 0.25)], (250, 250, 255))
    ground = hsv(0.6, rng.uniform(0.02, 0.1), rng.uniform(0.9, 1.0))
    polygon(draw, [(0, horizon), (1, horizon), (1, 1), (0, 1)], ground)
    for _ in range(rng.integers(15, 40)):
        disc(draw, rng.uniform(), rng.uniform(), 0.012, 0.012, (255, 255, 255))
    return canvas


def _night(rng: Rng, horizon: float) -> Image.Image:
    canvas = gradient((8, 10, 36), hsv(rng.uniform(0.62, 0.75), 0.5, rng.uniform(0.25, 0.4)))
    draw = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(10, 25)):
        disc(draw, rng.uniform(0, 1), rng.uniform(0, horizon), 0.009, 0.009, (240, 240, 200))
    x = rng.uniform(0.1, 0.9)
    disc(draw, x, 0.14, 0.09, 0.09, (245, 240, 205))
    disc(draw, x + 0.05, 0.12, 0.075, 0.075, (14, 16, 48))
    ground = hsv(rng.uniform(), rng.uniform(0.2, 0.5), rng.uniform(0.15, 0.3))
    polygon(draw, [(0, horizon), (1, horizon), (1, 1), (0, 1)], ground)
    return canvas


_PLACES: dict[str, Callable[[Rng, float], Image.Image]] = {
    "meadow": _meadow,
    "forest": _forest,
    "beach": _beach,
    "snow": _snow,
    "night": _night,
}


def draw_place(place: str, rng: Rng) -> Image.Image:
    """Return a canvas that shows ``place``, one of :data:`~dataset.creatures.world.PLACES`."""
    return _PLACES[place](rng, rng.uniform(0.45, 0.58))


def draw_thing(canvas: Image.Image, thing: str, rng: Rng) -> None:
    """Draw ``thing``, one of :data:`~dataset.creatures.world.THINGS`, on the ground in front."""
    draw = ImageDraw.Draw(canvas)
    x, y, size = rng.uniform(0.12, 0.88), rng.uniform(0.82, 0.92), rng.uniform(0.07, 0.11)
    if thing == "pond":
        water = hsv(rng.uniform(0.52, 0.6), rng.uniform(0.45, 0.75), rng.uniform(0.55, 0.85))
        disc(draw, x, y, 2.9 * size, 0.95 * size, (70, 80, 70))
        disc(draw, x, y, 2.7 * size, 0.8 * size, water)
        disc(draw, x - size, y - 0.2 * size, 0.8 * size, 0.12 * size, (235, 245, 250))
    elif thing == "rock":
        grey = int(rng.integers(95, 160))
        turns = np.sort(rng.uniform(-np.pi, 0, 4))
        tops = [(x + 1.5 * size * np.cos(t), y + 1.5 * size * np.sin(t)) for t in turns]
        rock = [(x - 1.6 * size, y + 0.5 * size), *tops, (x + 1.6 * size, y + 0.5 * size)]
        polygon(draw, rock, (grey, grey, grey))
        polygon(draw, [rock[-1], tops[-1], (x, y + 0.5 * size)], (grey - 35, grey - 35, grey - 30))
    else:
        stripe = random_color(rng, (0.7, 1.0), (0.7, 1.0))
        disc(draw, x, y, 1.1 * size, 1.1 * size, (40, 40, 40))
        disc(draw, x, y, size, size, (250, 250, 250))
        disc(draw, x, y, 0.5 * size, size, stripe)
        disc(draw, x, y, 0.25 * size, 0.25 * size, (40, 40, 40))


# ---- light


def finish(canvas: Image.Image, rng: Rng, brightness: tuple[float, float]) -> np.ndarray:
    """Return the image, uint8 [64,64,3]: shrunk, lit from one side, tinted and with noise."""
    pixels = np.asarray(canvas.reduce(OVERSAMPLING), np.float32)  # [64,64,3]
    angle, depth = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.3)
    ramp = np.linspace(-depth, depth, SIZE, dtype=np.float32)
    light = 1 + np.cos(angle) * ramp[None, :] + np.sin(angle) * ramp[:, None]  # [64,64]
    tint = rng.uniform(*brightness) * rng.uniform(0.88, 1.12, 3)
    contrast = rng.uniform(0.75, 1.1)
    pixels = (pixels - 128) * np.float32(contrast) + 128
    pixels *= light[:, :, None] * tint.astype(np.float32)
    noise = rng.standard_normal(pixels.shape, dtype=np.float32)
    pixels += np.float32(rng.uniform(2, 14)) * noise
    return np.clip(pixels, 0, 255).astype(np.uint8)
