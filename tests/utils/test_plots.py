"""Figures: they are PNG, with titles that are no mathematics and curves of one point."""

from PIL import Image

from utils.plots import Panel, line_plot, panel_plot, rank_plot

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


def test_a_figure_is_drawn_anew_when_anything_in_it_changes(tmp_path):
    drawn = {}
    for name, curves in (
        ("a", {"c": ([0.1, 0.9], [1.0, 0.5])}),
        ("b", {"c": ([0.1, 0.9], [1, 0.2])}),
    ):
        line_plot(curves, tmp_path / "one.png", "recall", "precision", "title")
        drawn[name] = (tmp_path / "one.png").read_bytes()
    assert drawn["a"] != drawn["b"]
    before = (tmp_path / "one.png").stat().st_mtime_ns
    line_plot(curves, tmp_path / "one.png", "recall", "precision", "title")
    assert (tmp_path / "one.png").stat().st_mtime_ns == before  # and only then


def test_dollars_are_no_mathematics(tmp_path):
    broken = r"$\nothing{$ run"  # of which matplotlib's mathematics makes an error
    line_plot({broken: ([0, 1], [1, 0])}, tmp_path / "one.png", "recall", "precision", broken)
    ranks = {broken: 1.0, "other": 2.0}
    rank_plot(ranks, [(broken, "other")], 1.5, tmp_path / "ranks.png", broken)
    assert size(tmp_path / "one.png") and size(tmp_path / "ranks.png")
