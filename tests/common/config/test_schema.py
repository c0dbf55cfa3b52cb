"""From YAML values to dataclasses: what is converted, what is refused, and in which words."""

import dataclasses
from typing import Any, Literal

import pytest

from common.config import schema
from utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Inner:
    side: int = 1


@dataclasses.dataclass(frozen=True)
class Keys:
    root: str
    flag: bool = False
    count: int = 0
    rate: float = 0.0
    mode: Literal["a", "b", 2] = "a"
    cache: Literal["auto", "off"] = "auto"
    maybe: int | None = None
    size: int | float = 1
    names: list[str] = dataclasses.field(default_factory=list)
    pair: tuple[float, ...] = ()
    table: dict[str, Inner] = dataclasses.field(default_factory=dict)
    inner: Inner = Inner()
    free: Any = None


def build(**values):
    return schema.build(
        Keys, {"root": "x", **values}, "dataset", lambda path: f"f.yaml:{len(path)}"
    )


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("flag", True, True), ("count", 3, 3), ("count", 3.0, 3), ("rate", 3, 3.0),
        ("rate", 1e-3, 1e-3), ("root", 5, "5"), ("mode", "b", "b"), ("mode", 2, 2),
        ("cache", False, "off"),
        ("maybe", None, None), ("maybe", 4, 4), ("size", 3, 3), ("size", 0.5, 0.5),
        ("names", ["a", 1], ["a", "1"]), ("pair", [1, 2], (1.0, 2.0)), ("free", {"z": 1}, {"z": 1}),
        ("table", {"t": {"side": 2}}, {"t": Inner(2)}), ("inner", {"side": 7}, Inner(7)),
    ],
)  # fmt: skip
def test_accepted(key, value, expected):
    built = getattr(build(**{key: value}), key)
    assert built == expected and type(built) is type(expected)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("flag", 1, "flag=1 is not accepted; true or false"),
        ("flag", "yes", "flag='yes' is not accepted; true or false"),
        ("count", 1.5, "count=1.5 is not accepted; a whole number"),
        ("count", True, "count=True is not accepted; a whole number"),
        ("count", "1", "count='1' is not accepted; a whole number"),
        ("rate", "fast", "rate='fast' is not accepted; a number"),
        ("rate", None, "rate=None is not accepted; a number"),
        ("root", True, "root=True is not accepted; a text"),
        ("mode", "aa", r"mode='aa' is not one of a, b, 2. Did you mean 'a'\?"),
        ("mode", True, "mode=True is not one of a, b, 2"),
        ("cache", True, "cache=True is not one of auto, off"),
        ("maybe", "x", "maybe='x' is not accepted; a whole number"),
        ("names", "a", "names='a' is not accepted; a list"),
        ("names", [["a"]], r"names\[0\]=\['a'\] is not accepted; a text"),
        ("inner", 3, "inner=3 is not accepted; a mapping of keys"),
        ("table", {"t": {"sid": 2}}, r"'dataset.table.t.sid' is not known. Did you mean 'side'\?"),
        ("table", [1], r"table=\[1\] is not accepted; a mapping"),
        ("inner", {"side": "x"}, "inner.side='x' is not accepted"),
    ],
)
def test_refused(key, value, message):
    with pytest.raises(UserError, match=message) as caught:
        build(**{key: value})
    assert str(caught.value).startswith("f.yaml:")


def test_an_unknown_key_names_place_and_nearest():
    with pytest.raises(UserError) as caught:
        build(cuont=1)
    assert str(caught.value).startswith(
        "f.yaml:13: key 'dataset.cuont' is not known. Did you mean 'count'? Accepted there: root,"
    )


def test_a_missing_key():
    with pytest.raises(
        UserError, match="key 'dataset.root' is missing; give it as dataset.root=VALUE"
    ):
        schema.build(Keys, {}, "dataset", lambda path: "f.yaml")


def test_plain_values_build_the_same_again():
    built = build(pair=[1], table={"t": {"side": 2}}, maybe=None, mode=2)
    plain = schema.plain(built)
    assert plain["pair"] == [1.0] and plain["table"] == {"t": {"side": 2}}
    assert schema.build(Keys, plain, "", str) == built


@dataclasses.dataclass(frozen=True)
class Rule:
    rule: str = "plain"
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Middle:
    split: Rule = Rule(rule="careful", seed=3)
    size: int = 1


@dataclasses.dataclass(frozen=True)
class Outer:
    middle: Middle = Middle(size=7)


def test_a_nested_default_keeps_what_is_not_given():
    built = schema.build(Outer, {"middle": {"split": {"seed": 5}}}, "", str)
    assert built == Outer(Middle(Rule("careful", 5), 7))
    assert schema.build(Outer, {}, "", str) == Outer()
    with pytest.raises(UserError, match="middle.split.sed"):
        schema.build(Outer, {"middle": {"split": {"sed": 5}}}, "", str)
