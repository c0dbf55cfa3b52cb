"""Figures as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from utils.files import atomic_path

Curves = Mapping[str, tuple[Sequence[float], Sequence[float]]]


class Panel(NamedTuple):
    """One plot of a figure.

    Attributes:
        curves: name → (x, y).
        x_label: the same for both axes: what they show.
        y_label: see there.
        title: stands above.
        marker: of the points, for curves of few; ``""`` for none.
    """

    curves: Curves
    x_label: str
    y_label: str
    title: str
    marker: str = ""


def line_plot(curves: Curves, path: Path, x_label: str, y_label: str, title: str) -> None:
    """Write a plot of named curves (x, y), both axes 0..1, to a PNG file."""
    panel_plot([Panel(curves, x_label, y_label, title)], path)


def panel_plot(panels: Sequence[Panel], path: Path, title: str = "") -> None:
    """Write plots side by side, all axes 0..1, to a PNG file."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, all_axes = plt.subplots(
        1, len(panels), figsize=(6.4 * len(panels), 4.8), layout="constrained", squeeze=False
    )
    for panel, axes in zip(panels, all_axes[0], strict=True):
        for name, (x, y) in panel.curves.items():
            axes.plot(x, y, label=_plain(name), linewidth=1.5, marker=panel.marker, markersize=4)
        axes.set(xlabel=panel.x_label, ylabel=panel.y_label, xlim=(0, 1), ylim=(0, 1.02))
        axes.set_title(_plain(panel.title))
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small", frameon=False)
    if title:
        figure.suptitle(_plain(title))
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)


def _plain(text: str) -> str:
    """Return text in which a dollar sign is a dollar sign, not the start of mathematics."""
    return text.replace("$", r"\$")
