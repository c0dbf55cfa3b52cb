"""Figures of matrices and distances: what is drawn, and that odd sizes are."""

import io

import numpy as np
import pytest
from PIL import Image

from runners.tensorboard.figures import MOST_NAMES, distance_histogram, heat_maps


def size(figure):
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    with Image.open(stream) as picture:
        return picture.size


@pytest.mark.parametrize("count", [1, 3, MOST_NAMES + 1])
def test_heat_maps(count):
    names = [f"class $_{c}" for c in range(count)]
    matrices = {"similarity": np.eye(count), "products": -np.ones((count, count))}
    figure = heat_maps(matrices, names)
    assert size(figure)[0] > size(heat_maps({"one": np.eye(count)}))[0]
    first, second, bar = figure.axes
    assert [axes.get_title() for axes in (first, second)] == list(matrices)
    assert (first.images[0].get_array() == np.eye(count)).all()
    written = [label.get_text() for label in first.get_xticklabels()]
    assert (written == [n.replace("$", r"\$") for n in names]) == (count <= MOST_NAMES)


def test_histogram_of_distances():
    figure = distance_histogram(np.array([3, 3, 5]), bits=8, required=3)
    (axes,) = figure.axes
    assert [bar.get_height() for bar in axes.patches] == [0, 0, 0, 2, 0, 1, 0, 0, 0]
    assert axes.get_legend().get_texts()[0].get_text() == "3 asked"
    for nothing in (distance_histogram(np.empty(0, int), bits=4), figure):
        assert size(nothing) == size(figure)
