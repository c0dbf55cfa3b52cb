"""Figures: they are PNG, with titles that are no mathematics and curves of one point."""

from PIL import Image

from utils.plots import Panel, line_plot, panel_plot

CURVES = {"a $_ b": ([0.1, 0.5], [1.0, 0.5]), "one point": ([1.0], [0.2]), "none": ([], [])}


def size(path):
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return picture.size


def test_one_and_two_plots(tmp_path):
    line_plot(CURVES, tmp_path / "deep" / "one.png", "recall", "precision", "$x")
    panel = Panel(CURVES, "recall", "precision", "$x", marker=".")
    panel_plot([panel, panel], tmp_path / "two.png", "$_ both")
    one, two = size(tmp_path / "deep" / "one.png"), size(tmp_path / "two.png")
    assert two == (2 * one[0], one[1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "two.png"]
