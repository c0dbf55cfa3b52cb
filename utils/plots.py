"""Figures as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from utils.files import atomic_path


def line_plot(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], path: Path, x_label: str,
    y_label: str, title: str,
) -> None:  # fmt: skip
    """Write a plot of named curves (x, y), both axes 0..1, to a PNG file."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.8), layout="constrained")
    for name, (x, y) in curves.items():
        axes.plot(x, y, label=name.replace("$", r"\$"), linewidth=1.5)
    axes.set(xlabel=x_label, ylabel=y_label, title=title, xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)
