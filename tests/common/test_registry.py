"""Names and classes: entering, finding, and the slips that users and plugins make."""

import dataclasses

import pytest

from common import registry
from common.registry import LOSSES, MODELS, Registry, load_plugin
from utils.errors import UserError

PLUGIN = """
from tests.common.test_registry import table

@table.register("{name}")
class Thing:
    '''A thing of {stem}.'''
"""
table = Registry("thing", "utils")


@dataclasses.dataclass(frozen=True)
class Keys:
    size: int = 3


@pytest.fixture(autouse=True)
def empty_table():
    table._entries.clear()


def write_plugin(folder, stem, name):
    file = folder / f"{stem}.py"
    file.write_text(PLUGIN.format(stem=stem, name=name))
    return file


def test_an_entry_says_what_is_known_of_it():
    @table.register("round", config=Keys, needs=("a",), provides=("b",), groups={"g": {"lr": 1}})
    class Round:
        """A round thing.

        Further lines.
        """

    entry = table.get("round")
    assert (entry.target, entry.config, entry.summary) == (Round, Keys, "A round thing.")
    assert (entry.needs, entry.provides, entry.groups) == (("a",), ("b",), {"g": {"lr": 1}})
    assert entry.file == __file__
    assert "round" in table and "square" not in table and table.names() == ["round"]


def test_an_unknown_name_lists_the_nearest():
    table.register("round")(Keys)
    with pytest.raises(
        UserError, match=r"^Unknown thing 'rond'. Did you mean 'round'\? Known: round.$"
    ):
        table.get("rond")


def test_the_config_must_be_a_dataclass():
    with pytest.raises(UserError, match="config of thing 'round' is .*dict.*a dataclass is needed"):
        table.register("round", config=dict)


def test_a_name_twice_fails_with_both_files(tmp_path):
    one, two = write_plugin(tmp_path, "one", "same"), write_plugin(tmp_path, "two", "same")
    load_plugin(one)
    with pytest.raises(UserError, match="thing name 'same' is registered twice") as caught:
        load_plugin(two)
    assert str(one) in str(caught.value) and str(two) in str(caught.value)
    assert table.get("same").summary == "A thing of one."


def test_the_same_file_may_register_again():
    table.register("round")(Keys)
    table.register("round")(Keys)


def test_a_class_without_a_source_file_may_register():
    exec("@table.register('typed')\nclass Typed:\n    'Typed into a console.'", {"table": table})
    assert table.get("typed").summary == "Typed into a console."


def test_a_plugin_is_loaded_once(tmp_path):
    file = write_plugin(tmp_path, "one", "first")
    assert load_plugin(file) == load_plugin(str(file)) == file.resolve()
    target = table.get("first").target
    load_plugin(file)
    assert table.get("first").target is target


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "import nothing_of_that_name",
            "ModuleNotFoundError: No module named 'nothing_of_that_name'",
        ),
        ("def f(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_plugin_that_fails_is_told(tmp_path, text, message):
    file = tmp_path / "broken.py"
    file.write_text(text)
    with pytest.raises(UserError, match=f"Plugin '{file}' failed while being imported: {message}"):
        load_plugin(file)
    file.write_text("")  # mended, it is imported afresh
    load_plugin(file)


def test_a_plugin_must_be_a_python_file(tmp_path):
    with pytest.raises(UserError, match="Plugin file .*none.py' does not exist"):
        load_plugin(tmp_path / "none.py")
    (tmp_path / "plugin.txt").write_text("")
    with pytest.raises(UserError, match=r"not a Python file \(its name must end in .py\)"):
        load_plugin(tmp_path / "plugin.txt")


def test_the_packages_are_discovered():
    assert {"csq", "dcmht", "dsph", "hashnet"} <= set(LOSSES.names())
    assert {"image_hash", "dcmht", "itq", "lsh"} <= set(MODELS.names())
    for kind in (registry.BACKBONES, registry.DATASETS, registry.RUNNERS, registry.OPTIMIZERS):
        for name in kind.names():
            assert kind.get(name).summary, f"{kind.kind} '{name}' has no docstring"
