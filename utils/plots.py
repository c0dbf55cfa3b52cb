"""Figures as PNG. An existing file of the same content is not drawn again, since that is slow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.files import atomic_path, digest
from utils.shown import shown

VERSION = "1"  # part of every mark: raise it when the look of figures changes
Curves = Mapping[str, tuple[Sequence[float], Sequence[float]]]


class Panel(NamedTuple):
    """One plot of a figure."""

    curves: Curves  # name → (x, y)
    x_label: str
    y_label: str
    title: str
    marker: str = ""  # of the points, for curves of few points


def line_plot(curves: Curves, path: Path, x_label: str, y_label: str, title: str) -> None:
    """Write a plot of named curves (x, y), both axes 0..1, to a PNG file."""
    panel_plot([Panel(curves, x_label, y_label, title)], path)


def panel_plot(panels: Sequence[Panel], path: Path, title: str = "") -> None:
    """Write plots side by side, all axes 0..1, to a PNG file."""
    mark = _mark("panels", title, *(part for panel in panels for part in _parts(panel)))
    if _is_drawn(path, mark):
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 * len(panels), 4.8), layout="constrained")
    for panel, axes in zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True):
        for name, (x, y) in panel.curves.items():
            axes.plot(x, y, label=_plain(name), linewidth=1.5, marker=panel.marker, markersize=4)
        axes.set(xlabel=panel.x_label, ylabel=panel.y_label, xlim=(0, 1), ylim=(0, 1.02))
        axes.set_title(_plain(panel.title))
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small", frameon=False)
    if title:
        figure.suptitle(_plain(title))
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png", metadata={"Comment": mark})


def rank_plot(
    ranks: Mapping[str, float], groups: Sequence[Sequence[str]], difference: float, path: Path,
    title: str,
) -> None:  # fmt: skip
    """Write a critical-difference diagram to a PNG file.

    Args:
        ranks: name → average rank, best first; 1 is best and on the left.
        groups: names joined by a bar, since their difference is not significant.
        difference: the critical difference, drawn to scale.
        path: of the file.
        title: above the diagram.
    """
    mark = _mark("ranks", title, repr((list(ranks.items()), [list(g) for g in groups], difference)))
    if _is_drawn(path, mark):
        return
    from matplotlib.figure import Figure

    count = len(ranks)
    bars = 0.25 * (len(groups) + 1)
    height = bars + 0.35 * ((count + 1) // 2)
    figure = Figure(figsize=(7.5, 1.4 + 0.6 * height), layout="constrained")
    axes = figure.subplots()
    axes.axis("off")
    axes.set(xlim=(0.2, count + 0.8), ylim=(-height - 0.1, 0.75))
    axes.plot([1, count], [0, 0], color="black", linewidth=1.2)
    for tick in range(1, count + 1):
        axes.plot([tick, tick], [0, 0.08], color="black", linewidth=1.2)
        axes.text(tick, 0.12, str(tick), ha="center", va="bottom", fontsize="small")
    axes.plot([1, 1 + difference], [0.45, 0.45], color="black", linewidth=2.5)
    axes.text(1, 0.5, f"critical difference {difference:.2f}", va="bottom", fontsize="small")
    half = (count + 1) // 2
    for position, (name, rank) in enumerate(ranks.items()):
        on_left = position < half
        y = -bars - 0.35 * (position if on_left else count - 1 - position) - 0.2
        edge = 0.95 if on_left else count + 0.05
        axes.plot([rank, rank, edge], [0, y, y], color="black", linewidth=0.8)
        label = f"{_plain(name)} ({rank:.2f})"
        align = "right" if on_left else "left"
        axes.text(edge, y, f" {label} ", ha=align, va="center", fontsize="small", clip_on=False)
    for level, group in enumerate(groups, 1):
        ends = [ranks[name] for name in group]
        x = [min(ends) - 0.04, max(ends) + 0.04]
        axes.plot(x, [-0.25 * level] * 2, color="black", linewidth=3.5, solid_capstyle="butt")
    axes.set_title(_plain(title), fontsize="medium")
    with atomic_path(path) as temporary:
        figure.savefig(
            temporary, dpi=120, format="png", bbox_inches="tight", metadata={"Comment": mark}
        )


def _parts(panel: Panel) -> list[str | bytes]:
    """Return the texts and the curves of a plot."""
    texts: list[str | bytes] = [panel.x_label, panel.y_label, panel.title, panel.marker]
    for name, curve in panel.curves.items():
        texts += [name, *(np.asarray(values, np.float64).tobytes() for values in curve)]
    return texts


def _mark(*content: str | bytes) -> str:
    """Return a hash of a figure's content, stored in its file as a comment."""
    return f"drawn from {digest(VERSION, *content)}"


def _is_drawn(path: Path, mark: str) -> bool:
    try:
        with open(path, "rb") as stream:
            return mark.encode() in stream.read(2048)  # comments stand before the pixels
    except OSError:
        return False


def _plain(text: str) -> str:
    """Return text as shown, with its dollar signs escaped, which would start mathematics."""
    return shown(text, longest=120).replace("$", r"\$")
