"""From a plain mapping to a dataclass, strictly: an unknown or mistyped key is an error.

Understood field types: ``bool``, ``int``, ``float``, ``str``, ``Literal``, ``X | None`` and other
unions, ``list``/``tuple`` of these, ``dict``, and nested dataclasses.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

from utils.errors import UserError, nearest
from utils.shown import brief

T = TypeVar("T")

LARGEST = 2**63
"""Beyond the numbers that files and libraries hold."""

Locate = Callable[[str], str]
"""Key path (``loss.alpha``) → where it was set (``configs/method/dsph.yaml:4``)."""


@functools.lru_cache(maxsize=1024)  # it compiles every annotation
def _hints(schema: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(schema)


def build(
    schema: type[T], values: Mapping[str, Any], path: str, locate: Locate, default: T | None = None
) -> T:
    """Return ``schema(**values)`` with every key known and every value of the declared type.

    A field that holds a dataclass keeps those of its default's values that are not given: where
    the default is ``Split(rule="per_class", query=20)``, giving ``seed`` changes the seed alone.

    Args:
        schema: a dataclass.
        values: key → value, as read from YAML.
        path: dotted path of ``values`` in the whole config, for messages.
        locate: says where a key path was set.
        default: what keys that are not given are taken from; None for the schema's own defaults.

    Raises:
        UserError: naming place, key, what was given, what is accepted and the nearest key.
    """
    hints = _hints(schema)  # type: ignore[arg-type]
    fields = {field.name: field for field in dataclasses.fields(schema)}  # type: ignore[arg-type]
    arguments = {}
    for key, value in values.items():
        full = f"{path}.{key}" if path else str(key)
        if key not in fields:
            accepted = ", ".join(fields) or "none"
            raise UserError(
                f"{locate(full)}: key '{full}' is not known.{nearest(str(key), fields)} "
                f"Accepted there: {accepted}."
            )
        hint, field_default = hints[key], getattr(default, key, fields[key].default)
        has_defaults = type(field_default) is hint and dataclasses.is_dataclass(field_default)
        if has_defaults and isinstance(value, Mapping):
            arguments[key] = build(hint, value, full, locate, field_default)
        else:
            arguments[key] = convert(hint, value, full, locate)
    if default is not None:
        return dataclasses.replace(default, **arguments)  # type: ignore[type-var]
    missing = [
        name
        for name, field in fields.items()
        if name not in arguments
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        full = f"{path}.{missing[0]}" if path else missing[0]
        raise UserError(f"{locate(path)}: key '{full}' is missing; give it as {full}=VALUE.")
    return schema(**arguments)


def convert(hint: Any, value: Any, path: str, locate: Locate) -> Any:
    """Return ``value`` as the type ``hint`` asks, or raise :class:`UserError`."""
    origin = typing.get_origin(hint)
    options = typing.get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return build(hint, convert(dict, value, path, locate), path, locate)
    if origin is typing.Literal:
        if isinstance(value, bool):  # YAML reads the word off as false
            words = ("on", "yes", "true") if value else ("off", "no", "false")
            value = next((word for word in words if word in options), value)
        for option in options:
            if value == option and isinstance(value, bool) == isinstance(option, bool):
                return option
        names = [str(option) for option in options]
        raise UserError(
            f"{locate(path)}: {path}={brief(value)} is not one of {', '.join(names)}."
            f"{nearest(str(value), names)}"
        )
    if origin in (typing.Union, types.UnionType):
        return _convert_union(options, value, path, locate)
    if origin in (list, tuple):
        if not isinstance(value, (list, tuple)):
            raise not_accepted(value, "a list", path, locate)
        inner = options[0] if options else Any
        return origin(convert(inner, item, f"{path}[{i}]", locate) for i, item in enumerate(value))
    if origin is dict or hint is dict:
        if not isinstance(value, Mapping):
            raise not_accepted(value, "a mapping of keys", path, locate)
        inner = options[1] if options else Any
        return {str(k): convert(inner, v, f"{path}.{k}", locate) for k, v in value.items()}
    return _convert_scalar(hint, value, path, locate)


def plain(value: Any) -> Any:
    """Return dataclasses, tuples and mappings as dicts and lists that YAML and JSON can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one with dotted keys.

    >>> flat({"a": {"b": 1}, "c": 2})
    {'a.b': 1, 'c': 2}
    """
    result: dict[str, Any] = {}
    for key, value in nested.items():
        path = f"{prefix}{key}"
        result.update(flat(value, f"{path}.") if isinstance(value, Mapping) else {path: value})
    return result


def _convert_union(options: tuple[Any, ...], value: Any, path: str, locate: Locate) -> Any:
    if value is None and type(None) in options:
        return None
    # the exact type first, so that `int | float` keeps 3 an int
    candidates = [o for o in options if o is not type(None)]
    candidates.sort(key=lambda option: type(value) is not option)
    for option in candidates:
        with contextlib.suppress(UserError):
            return convert(option, value, path, locate)
    return convert(candidates[0], value, path, locate)  # raises


def _convert_scalar(hint: Any, value: Any, path: str, locate: Locate) -> Any:
    if hint is bool and isinstance(value, bool):
        return value
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if is_number and (value != value or (isinstance(value, int) and abs(value) >= LARGEST)):
        raise not_accepted(value, "a number below 2^63", path, locate)
    if hint is int and is_number and value % 1 == 0 and abs(value) < LARGEST:
        return int(value)
    if hint is float and is_number:
        return float(value)
    if hint is str and (is_number or (isinstance(value, str) and "\0" not in value)):
        return str(value)
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    if isinstance(value, str) and hint is str:
        raise not_accepted(value, "a text without the NUL sign", path, locate)
    raise not_accepted(value, names.get(hint, f"a {hint}"), path, locate)


def not_accepted(value: Any, accepted: str, path: str, locate: Locate) -> UserError:
    """Return the error for a value of key ``path`` that is not what is ``accepted``."""
    return UserError(
        f"{locate(path)}: {path}={brief(value)} is not accepted; {accepted} is needed."
    )
