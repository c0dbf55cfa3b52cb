"""Draw one creature: polygons in the creature's frame, moved into the image by its pose.

In the creature's frame the body's centre is the origin, x points to where it looks, y points down,
and a body is about one unit long. Everything is drawn on a canvas :data:`OVERSAMPLING` times the
final size and shrunk, which smooths the edges.
"""

from __future__ import annotations

import colorsys
import dataclasses

import numpy as np
from PIL import Image, ImageDraw

from dataset.creatures.world import NONE, Traits

SIZE = 64  # px, side of the final image
OVERSAMPLING = 2
CANVAS = SIZE * OVERSAMPLING  # px, side of the canvas that is drawn on

Color = tuple[int, int, int]

_TURN = np.linspace(0, 2 * np.pi, 25)[:-1]
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], 1)  # [24,2]

BODIES = {
    # half length, half height, exponent p of the outline |x/a|^p + |y/b|^p = 1
    "round": (0.50, 0.46, 2.0),
    "long": (0.76, 0.27, 2.6),
    "tall": (0.33, 0.62, 2.3),
    "boxy": (0.55, 0.42, 8.0),
}
HUES = {"red": 0.99, "amber": 0.11, "green": 0.33, "blue": 0.60, "violet": 0.79, "grey": 0.08}
LEGS_NEAR = {"0": (), "2": (-0.3, 0.4), "4": (-0.75, 0.5), "6": (-0.8, -0.1, 0.6)}
LEGS_FAR = {"0": (), "2": (), "4": (-0.4, 0.85), "6": (-0.45, 0.25, 0.95)}

WHITE = (250, 250, 245)
BLACK = (20, 18, 24)
BONE = (236, 222, 190)
BEAK = (245, 165, 40)


@dataclasses.dataclass(frozen=True)
class Pose:
    """Position, size and orientation of a creature in its image.

    Attributes:
        x: centre, fraction of the image's width.
        y: centre, fraction of its height.
        size: side of a square around the creature, fraction of the image.
        angle: rotation, radians.
        mirrored: whether it looks to the left.
        squash: apparent length over true length (below 1: seen from slightly ahead).
    """

    x: float
    y: float
    size: float
    angle: float
    mirrored: bool
    squash: float


@dataclasses.dataclass(frozen=True)
class Palette:
    """Colours of one animal: its main colour, a contrasting one and a darker one for outlines."""

    main: Color
    pattern: Color
    far: Color
    outline: Color


def hsv(hue: float, saturation: float, value: float) -> Color:
    """Return RGB 0..255 of a hue, saturation and brightness in 0..1."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, min(saturation, 1), min(value, 1))
    return int(255 * red), int(255 * green), int(255 * blue)


def sample_palette(colour: str, rng: np.random.Generator) -> Palette:
    """Return colours of the family ``colour``: hue, saturation and brightness vary by animal."""
    hue = (HUES[colour] + rng.uniform(-0.035, 0.035)) % 1
    saturation = rng.uniform(0.02, 0.12) if colour == "grey" else rng.uniform(0.5, 0.95)
    value = rng.uniform(0.5, 0.95)
    contrast = 0.42 if value > 0.65 else 1.75
    return Palette(
        main=hsv(hue, saturation, value),
        pattern=hsv(hue, saturation * 0.8, value * contrast),
        far=hsv(hue, saturation, value * 0.75),
        outline=hsv(hue, saturation, value * 0.35),
    )


class Pen:
    """Draws shapes given in a creature's frame onto a canvas."""

    def __init__(self, canvas: Image.Image, pose: Pose, scale: float, x: float, y: float) -> None:
        """Map the frame's point (-x, -y) to the pose's, with ``scale`` canvas pixels per unit."""
        self.draw = ImageDraw.Draw(canvas)
        cos, sin = np.cos(pose.angle), np.sin(pose.angle)
        flip = -1.0 if pose.mirrored else 1.0
        stretch = np.array([[flip * pose.squash, 0.0], [0.0, 1.0]])
        self.matrix = scale * np.array([[cos, -sin], [sin, cos]]) @ stretch
        centre = np.array([pose.x, pose.y]) * CANVAS
        self.offset = centre + self.matrix @ np.array([x, y])
        self.scale = scale

    def polygon(self, points: np.ndarray, fill: Color, outline: Color | None = None) -> None:
        """Fill the polygon ``points`` [n,2], with an outline if it has a colour."""
        pixels = (points @ self.matrix.T + self.offset).ravel().tolist()
        self.draw.polygon(pixels, fill=fill)
        if outline is not None:
            self.draw.line(pixels + pixels[:4], fill=outline, width=2)

    def oval(
        self,
        centre: tuple[float, float] | np.ndarray,
        radii: tuple[float, float],
        fill: Color,
        outline: Color | None = None,
        turn: float = 0.0,
    ) -> None:
        """Fill an ellipse whose first radius is turned by ``turn`` radians from the x axis."""
        cos, sin = np.cos(turn), np.sin(turn)
        points = (_CIRCLE * radii) @ np.array([[cos, sin], [-sin, cos]]) + centre
        self.polygon(points, fill, outline)

    def limb(
        self, points: np.ndarray, widths: tuple[float, float], fill: Color, outline: Color
    ) -> None:
        """Draw a limb along ``points`` [n,2] that tapers from the first width to the second."""
        along = np.empty_like(points)
        along[1:-1] = points[2:] - points[:-2]
        along[0], along[-1] = points[1] - points[0], points[-1] - points[-2]
        across = np.stack([-along[:, 1], along[:, 0]], 1)
        across /= np.linalg.norm(across, axis=1, keepdims=True) + 1e-9
        half = np.linspace(*widths, len(points))[:, None] / 2
        shape = np.concatenate([points + half * across, (points - half * across)[::-1]])
        self.polygon(shape, fill, outline)

    def stroke(self, points: np.ndarray, width: float, fill: Color) -> None:
        """Draw a line through ``points`` [n,2], ``width`` units wide but at least an outline."""
        pixels = (points @ self.matrix.T + self.offset).ravel().tolist()
        self.draw.line(pixels, fill=fill, width=max(2, round(width * self.scale)), joint="curve")


def _curve(start: np.ndarray, middle: np.ndarray, end: np.ndarray, steps: int = 7) -> np.ndarray:
    """Return points [steps,2] of the quadratic Bézier curve through ``start`` and ``end``."""
    t = np.linspace(0, 1, steps)[:, None]
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end


class _Animal:
    """State of drawing one animal: its traits, proportions, pen and colours."""

    def __init__(
        self, canvas: Image.Image, traits: Traits, pose: Pose, rng: np.random.Generator
    ) -> None:
        self.traits = traits
        self.rng = rng
        self.colors = sample_palette(traits.colour, rng)
        a, b, self.exponent = BODIES[traits.body]
        self.a, self.b = a * rng.uniform(0.9, 1.1), b * rng.uniform(0.9, 1.1)
        self.leg = 0.0 if traits.legs == "0" else rng.uniform(0.3, 0.4)
        self.head_radius = rng.uniform(0.26, 0.31)
        neck = rng.uniform(0.42, 0.55) if traits.neck == "long" else 0.0
        self.shoulder = np.array([0.72 * self.a, -0.45 * self.b])
        lean = rng.uniform(0.2, 0.5)
        self.head = np.array([0.85 * self.a + lean * neck, -0.8 * self.b - neck])
        top, bottom, left, right = self.extent()
        # Half way between equal scale and equal extent: a giraffe still looks taller than a ball.
        scale = pose.size * CANVAS / np.sqrt(1.6 * max(bottom - top, right - left))
        self.pen = Pen(canvas, pose, scale, -(left + right) / 2, -(top + bottom) / 2)

    def extent(self) -> tuple[float, float, float, float]:
        """Return the approximate bounds of the animal: top, bottom, left, right in its frame."""
        traits, r = self.traits, self.head_radius
        crown = 0.4 if traits.headgear != NONE else 0.2 if traits.ears == "pointed" else 0.0
        muzzle = 0.25 if traits.mouth in ("beak", "trunk") else 0.0
        top, right = float(self.head[1]) - r - crown, float(self.head[0]) + r + muzzle
        wing = 0.8 + 0.35 * self.b if traits.wings == "wings" else 0.0
        tail = 0.4 if traits.tail != NONE else 0.0
        return min(top, -wing), self.b + self.leg, -self.a - tail, right

    def jitter(self, spread: float) -> float:
        return float(self.rng.uniform(-spread, spread))

    def edge(self, x: np.ndarray) -> np.ndarray:
        """Return the height of the body above its axis at ``x``, for |x| < a."""
        p = self.exponent
        return self.b * (1 - np.minimum(np.abs(x / self.a), 1) ** p) ** (1 / p)

    def draw(self) -> None:
        """Draw all parts from the far side to the near side."""
        self.draw_wing(far=True)
        self.draw_tail()
        self.draw_legs(LEGS_FAR[self.traits.legs], self.colors.far)
        self.draw_spikes()
        if self.traits.neck == "long":
            path = _curve(self.shoulder * 0.8, self.shoulder + [0.05, -0.25], self.head)
            self.pen.limb(path, (0.3, 0.2), self.colors.main, self.colors.outline)
        self.draw_body()
        self.draw_legs(LEGS_NEAR[self.traits.legs], self.colors.main)
        self.draw_wing(far=False)
        self.draw_ears(behind_head=True)
        self.pen.oval(
            self.head,
            (self.head_radius, self.head_radius * 0.92),
            self.colors.main,
            self.colors.outline,
        )
        self.draw_ears(behind_head=False)
        self.draw_headgear()
        self.draw_mouth()
        self.draw_eyes()

    def draw_legs(self, positions: tuple[float, ...], fill: Color) -> None:
        for position in positions:
            x = position * self.a * 0.85
            top = np.array([x, float(self.edge(np.array(x))) * 0.7])
            swing = self.jitter(0.12)
            foot = np.array([x + swing, self.b + self.leg])
            knee = (top + foot) / 2 + [self.jitter(0.05), 0]
            self.pen.limb(_curve(top, knee, foot, 4), (0.17, 0.12), fill, self.colors.outline)
            self.pen.oval(foot + [0.03, 0], (0.1, 0.05), self.colors.outline)

    def draw_tail(self) -> None:
        root = np.array([-0.88 * self.a, -0.1 * self.b])
        lift = self.jitter(0.25)
        if self.traits.tail == "thin":
            tip = root + [-0.42, -0.3 + lift]
            path = _curve(root, root + [-0.38, 0.15], tip)
            self.pen.limb(path, (0.12, 0.05), self.colors.main, self.colors.outline)
        elif self.traits.tail == "bushy":
            turn = 0.6 + lift
            middle = root + [-0.24 * np.cos(turn), -0.24 * np.sin(turn)]
            self.pen.oval(middle, (0.32, 0.17), self.colors.pattern, self.colors.outline, turn)
            tip = root + [-0.42 * np.cos(turn), -0.42 * np.sin(turn)]
            self.pen.oval(tip, (0.11, 0.1), WHITE)

    def draw_spikes(self) -> None:
        if self.traits.back != "spikes":
            return
        for x in np.linspace(-0.75, 0.4, 5) * self.a:
            base = -float(self.edge(np.array(x))) + 0.1
            tip = [x - 0.08, base - 0.3 + self.jitter(0.03)]
            spike = np.array([[x - 0.11, base], tip, [x + 0.11, base]])
            self.pen.polygon(spike, self.colors.pattern, self.colors.outline)

    def draw_body(self) -> None:
        power = 2 / self.exponent
        outline = np.sign(_CIRCLE) * np.abs(_CIRCLE) ** power * [self.a, self.b]
        self.pen.polygon(outline, self.colors.main)
        if self.traits.coat == "striped":
            self.draw_stripes()
        elif self.traits.coat == "spotted":
            self.draw_spots()
        self.pen.stroke(np.concatenate([outline, outline[:2]]), 0.0, self.colors.outline)

    def draw_stripes(self) -> None:
        step = self.rng.uniform(0.2, 0.26)
        slant = self.jitter(0.06)
        for x in np.arange(-self.a + step * self.rng.uniform(0.3, 0.8), 0.9 * self.a, step):
            ends = np.clip(np.array([x, x + 0.45 * step]), -0.96 * self.a, 0.96 * self.a)
            height = self.edge(ends) * 0.98
            top = np.stack([ends + slant, -height * 0.97], 1)
            low = np.stack([ends - slant, height * 0.97], 1)
            clipped = np.clip(np.concatenate([top, low[::-1]]), [-self.a, -2], [self.a, 2])
            self.pen.polygon(clipped, self.colors.pattern)

    def draw_spots(self) -> None:
        step = 0.24
        for row, y in enumerate(np.arange(-self.b + 0.12, self.b - 0.05, step)):
            for x in np.arange(-self.a + 0.08 + 0.5 * step * (row % 2), self.a, step):
                x_spot, y_spot = x + self.jitter(0.04), y + self.jitter(0.04)
                if abs(x_spot) < 0.9 * self.a and abs(y_spot) < self.edge(np.array(x_spot)) - 0.06:
                    radius = self.rng.uniform(0.06, 0.085)
                    self.pen.oval((x_spot, y_spot), (radius, radius), self.colors.pattern)

    def draw_wing(self, far: bool) -> None:
        if self.traits.wings != "wings":
            return
        lift = self.rng.uniform(0.7, 1.15) + (0.25 if far else 0)
        root = np.array([0.1 if far else -0.05, -0.35 * self.b])
        angles = np.linspace(lift, lift - 0.75, 4)
        reach = np.array([0.8, 0.78, 0.66, 0.5])
        tips = root + reach[:, None] * np.stack([-np.cos(angles), -np.sin(angles)], 1)
        dents = root + 0.8 * ((tips[:-1] + tips[1:]) / 2 - root)
        rim = np.empty((7, 2))
        rim[0::2], rim[1::2] = tips, dents
        wing = np.concatenate([[root + [0.12, 0.0]], rim, [root + [-0.1, 0.12]]])
        fill = self.colors.far if far else self.colors.pattern
        self.pen.polygon(wing, fill, self.colors.outline)

    def draw_ears(self, behind_head: bool) -> None:
        kind, r = self.traits.ears, self.head_radius
        if behind_head == (kind == "floppy"):  # floppy ears hang over the head, others stand behind
            return
        fill, outline = self.colors.far, self.colors.outline
        for side in (-1, 1):
            root = self.head + [side * 0.62 * r, -0.62 * r]
            if kind == "pointed":
                tip = root + [side * 0.12 + self.jitter(0.05), -0.34]
                self.pen.polygon(
                    np.array([root + [-0.14, 0.08], tip, root + [0.14, 0.08]]), fill, outline
                )
            elif kind == "round":
                self.pen.oval(root + [side * 0.07, -0.05], (0.16, 0.16), fill, outline)
            elif kind == "floppy":
                turn = np.pi / 2 - side * (0.2 + self.jitter(0.15))
                self.pen.oval(root + [side * 0.15, 0.2], (0.27, 0.1), fill, outline, turn)

    def draw_headgear(self) -> None:
        kind, r = self.traits.headgear, self.head_radius
        crown = self.head + [0.0, -0.85 * r]
        if kind == "horn":
            tip = crown + [0.16 + self.jitter(0.06), -0.5]
            horn = np.array([crown + [-0.09, 0.03], tip, crown + [0.12, 0.03]])
            self.pen.polygon(horn, BONE, self.colors.outline)
            return
        for side in (-1, 1):
            root = crown + [side * 0.1, 0.03]
            if kind == "horns":
                path = _curve(root, root + [side * 0.32, -0.06], root + [side * 0.2, -0.4])
                self.pen.limb(path, (0.16, 0.03), BONE, self.colors.outline)
            elif kind == "antennae":
                tip = root + [side * 0.16 + self.jitter(0.05), -0.42]
                self.pen.stroke(_curve(root, root + [0, -0.25], tip), 0.04, self.colors.outline)
                self.pen.oval(tip, (0.075, 0.075), self.colors.pattern, self.colors.outline)

    def draw_mouth(self) -> None:
        kind, r = self.traits.mouth, self.head_radius
        low = self.head + [0.35 * r, 0.5 * r]
        if kind == "beak":
            root = self.head + [0.7 * r, 0.3 * r]
            beak = np.array([root + [0, -0.13], root + [0.36, 0.06], root + [-0.02, 0.15]])
            self.pen.polygon(beak, BEAK, self.colors.outline)
        elif kind == "trunk":
            root = self.head + [0.7 * r, 0.3 * r]
            tip = root + [0.3 + self.jitter(0.1), 0.5 + self.jitter(0.1)]
            path = _curve(root, root + [0.36, -0.05], tip)
            self.pen.limb(path, (0.2, 0.1), self.colors.main, self.colors.outline)
        elif kind == "fangs":
            self.pen.oval(low, (0.17, 0.085), BLACK)
            for x in (-0.09, 0.09):
                top = low + [x, -0.05]
                fang = np.array([top + [-0.05, 0], top + [0, 0.2], top + [0.05, 0]])
                self.pen.polygon(fang, WHITE)
        else:
            path = _curve(low + [-0.1, 0], low + [0.02, 0.1], low + [0.14, -0.03])
            self.pen.stroke(path, 0.03, self.colors.outline)

    def draw_eyes(self) -> None:
        r = self.head_radius
        positions, radius = {
            "one": (((0.25, -0.18),), 0.5 * r),
            "three": (((-0.3, -0.1), (0.6, -0.1), (0.15, -0.6)), 0.27 * r),
        }.get(self.traits.eyes, (((-0.2, -0.2), (0.5, -0.2)), 0.32 * r))
        gaze = np.array([self.jitter(0.35), self.jitter(0.3)])
        for position in positions:
            centre = self.head + np.array(position) * r
            self.pen.oval(centre, (radius, radius), WHITE, self.colors.outline)
            self.pen.oval(centre + gaze * radius, (0.5 * radius, 0.5 * radius), BLACK)


def draw_creature(
    canvas: Image.Image, traits: Traits, pose: Pose, rng: np.random.Generator
) -> None:
    """Draw a creature with ``traits`` on ``canvas`` (RGB, :data:`CANVAS` px wide)."""
    _Animal(canvas, traits, pose, rng).draw()
