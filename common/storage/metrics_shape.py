"""What ``metrics.json`` must hold, so that every reader may rely on it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from common.directions import DIRECTIONS

Number = "a finite number"
Optional = "a finite number or null"
Whole = "a whole number"
Text = "a text"
_BY_CUT = {"*": Optional}
_CURVES = {"*": [Optional]}
_BAND = {"expected": Number, "worst": Number, "best": Number}
_BAND_BY_CUT = {"*": _BAND}
_REPORT = {
    "map": _BAND_BY_CUT,
    "?ndcg": _BY_CUT,
    "?precision_at": _BY_CUT,
    "?recall_at": _BY_CUT,
    "?compat": _BY_CUT,
    "?pr_radius": _CURVES,
    "?pr_rank": _CURVES,
    "?precision_radius2": Optional,
    "?r_precision": Optional,
    "?epoch": Optional,
    "?epochs": {"*": Whole},
}
_ZERO_SHOT = {
    "?all_classes": _BAND_BY_CUT,
    "?unseen_only": _BAND_BY_CUT,
    "?generalised": {"?unseen": _BAND_BY_CUT, "?seen": _BAND_BY_CUT, "?harmonic": {"*": Number}},
}
_METRICS = {
    "run": {"method": Text, "bits": Whole, "seed": Whole, "dataset": Text, "backbone": Text},
    "protocol": {
        "selected": {"on": Text, "?epoch": Optional, "?per": Text, "?epochs": {"*": Whole}},
        "?rows": {"*": Whole},
    },
    "split_hash": Text,
    "directions": {"*": _REPORT},
    "timing": {"?train_s": Number, "?of_train": {"*": Optional}, "*": Optional},
    "?memory": {"?peak_mb": Optional, "*": None},
    "?zero_shot": {"?seen_classes": [Whole], "directions": {"*": _ZERO_SHOT}},
}
"""``?``: may be missing, a mapping also null; ``*``: any further key; a list: of such items."""


def wrong_in_metrics(metrics: Any) -> str | None:
    """Return the first thing in ``metrics.json`` that no run writes, in words, or None."""
    reason = _wrong(metrics, _METRICS, "")
    if reason is None:
        unknown = [name for name in metrics["directions"] if name not in DIRECTIONS]
        reason = f"directions has '{unknown[0]}'" if unknown else None
    return reason


def _wrong(value: Any, wanted: Any, place: str) -> str | None:
    if isinstance(wanted, dict):
        return _wrong_mapping(value, wanted, place)
    if isinstance(wanted, list):
        if not isinstance(value, list):
            return f"{place} is no list"
        wrong = (_wrong(item, wanted[0], f"{place}[{i}]") for i, item in enumerate(value))
        return next((reason for reason in wrong if reason), None)
    if wanted is None or (wanted is Optional and value is None):
        return None
    fits = {
        Text: isinstance(value, str),
        Whole: isinstance(value, int) and _is_number(value),
    }.get(wanted, _is_number(value))
    return None if fits else f"{place} is not {wanted}"


def _wrong_mapping(value: Any, wanted: Mapping[str, Any], place: str) -> str | None:
    if not isinstance(value, dict):
        return f"{place} is no mapping" if place else "it is no mapping"
    known = {key.removeprefix("?"): kind for key, kind in wanted.items() if key != "*"}
    missing = [k for k in wanted if k != "*" and not k.startswith("?") and k not in value]
    if missing or (list(wanted) == ["*"] and not value and place.endswith(("map", "directions"))):
        return f"{place or 'it'} lacks {missing[0] if missing else 'entries'}"
    for key, part in value.items():
        where = f"{place}.{key}" if place else str(key)
        if part is None and isinstance(wanted.get(f"?{key}"), dict):
            continue
        kind = known.get(key, wanted.get("*"))
        if reason := _wrong(part, kind, where):
            return reason
    lengths = {len(part) for part in value.values() if isinstance(part, list)}
    if wanted is _CURVES and len(lengths) > 1:
        return f"the lists of {place} differ in length"
    return None


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < sys.float_info.max  # false for NaN; of an int of any size without a float
