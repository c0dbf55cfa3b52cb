"""YAML within bounds is read as ever; beyond them it is refused before anything is built."""

import pytest

from utils.errors import UserError
from utils.yaml_file import DEEPEST, MOST_VALUES, check_yaml, read_yaml


def test_what_settings_look_like(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(
        "base: &b {lr: 1e-3}\nhead: {<<: *b, with: true}\nnames: [a, 2026-01-02, null]\n"
    )
    assert read_yaml(file)["head"] == {"lr": "1e-3", "with": True}
    file.write_text("")
    assert read_yaml(file) is None


def test_the_bounds_themselves_pass():
    check_yaml("[" * DEEPEST + "]" * DEEPEST, "x")
    check_yaml(str([1] * (MOST_VALUES - 1)), "x")
    with pytest.raises(UserError, match="at most 10,000 are read"):
        check_yaml(str([1] * MOST_VALUES), "x")
    check_yaml(f"a: {'9' * 400}", "x")
    check_yaml(f"a: '{'9' * 500}'", "x")  # in quotes it is text


@pytest.mark.parametrize(
    "content", ["a: 2026-99-99", "a: [", "a: !!python/object:os.system x", "*a"]
)
def test_invalid(tmp_path, content):
    (tmp_path / "a.yaml").write_text(content)
    with pytest.raises(UserError, match="a.yaml.*: not valid YAML"):
        read_yaml(tmp_path / "a.yaml")
