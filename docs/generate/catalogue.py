"""The pages of all components and of all keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from common import registry
from common.config.run_config import DataConfig, EvalConfig
from docs.generate.docstrings import LinkTo, inline
from docs.generate.facts import ROOT, Option, options
from docs.generate.markdown import MARK, table
from runners.commands.list import listing

TITLES: Mapping[str, tuple[str, str]] = {
    "datasets": ("Datasets", "`dataset=NAME`; where to get them and which protocols there are: "
                 "[datasets](datasets.md)."),
    "backbones": ("Encoders", "`backbone=NAME` for a file of `configs/backbone/`, "
                  "`backbone.name=NAME` for the kinds that these files configure."),
    "models": ("Models", "`model.name=NAME`: an encoder with hash heads."),
    "losses": ("Losses", "`loss.name=NAME`, with any model that gives what they need."),
    "runners": ("Runners", "`runner.name=NAME`: the training procedure."),
    "optimizers": ("Optimisers", "`optim.name=NAME`."),
    "sweeps": ("Sweeps", "`python main.py sweep NAME`."),
}  # fmt: skip

GENERAL = (
    ("method", "a file of `configs/method/` or a path"),
    ("dataset", "a file of `configs/dataset/` or a path"),
    ("backbone", "a file of `configs/backbone/` or a path"),
    ("bits", "length of the code, K"),
    ("seed", "decides initialisation, order, captions, crops and flips, validation rows"),
    ("output", "folder of run folders"),
    ("plugins", "Python files that register components of yours: `plugins=[file.py]`"),
)
SECTIONS = (
    ("runner", registry.RUNNERS, "A runner of stages has further keys, which stand on the page of "
     "its method."),
    ("optim", registry.OPTIMIZERS, "Besides, `optim.lr` is the learning rate, and "
     "`optim.groups.NAME` takes the same keys for a group of parameters (`backbone`, `proxies`)."),
    ("schedule", registry.SCHEDULERS, "Of the learning rate."),
    ("backbone", registry.BACKBONES, ""),
    ("dataset", registry.DATASETS, ""),
)  # fmt: skip


def no_link(module: str) -> None:
    """Link to no module."""


def components_page() -> str:
    """Return the page of all components but methods, as ``main.py list`` has them."""
    found = listing(list(TITLES))
    blocks = [
        MARK.format("the registries and the files of `configs/`"),
        "# Components\n\nWhat `python main.py list` shows, methods aside "
        "([these](methods/index.md)). Any of it can be chosen on the command line or in YAML; the "
        "keys of each: [settings](settings.md).",
    ]
    for kind, (title, told) in TITLES.items():
        rows = [
            (f"`{one['name']}`", inline(one["summary"], no_link), _outputs(one))
            for one in found[kind]
        ]
        width = 3 if any(row[2] for row in rows) else 2
        head = ["name", "what it is", "needs" if kind == "losses" else "gives"][:width]
        blocks += [f"## {title}", told, table(head, [row[:width] for row in rows])]
    return "\n\n".join(blocks) + "\n"


def _outputs(entry: Mapping[str, object]) -> str:
    names = entry.get("needs") or entry.get("provides") or ()
    assert isinstance(names, (list, tuple))
    return ", ".join(f"`{name}`" for name in names)


def settings_page() -> str:
    """Return the page of all keys; those of models and losses are on the pages of methods."""
    base = (ROOT / "configs" / "base.yaml").read_text(encoding="utf-8").rstrip()
    blocks = [
        MARK.format("the dataclasses in the code, which are the schema"),
        "# Settings",
        "Every key of YAML and of the command line (`runner.epochs=5`). Those of `model` and "
        "`loss` stand on the [pages of methods](methods/index.md). An unknown key or a value of "
        "another type is an error that names the file, the line and the nearest key.",
        "Layers, later ones win: `configs/base.yaml`, dataset, backbone, method, `--config FILE`, "
        "command line. A layer that gives a section another `name` drops the keys of the previous "
        "one.",
        f"```yaml\n{base}\n```",
        "## General",
        table(["key", "meaning"], [(f"`{key}`", meaning) for key, meaning in GENERAL]),
    ]
    for section, schema in (("data", DataConfig), ("eval", EvalConfig)):
        told = (schema.__doc__ or "").split(": ", 1)[-1]
        blocks += [f"## {section}", f"{told[0].upper()}{told[1:]}"]
        blocks.append(keys_table(section, list(options(schema)), no_link))
    for section, table_of, told in SECTIONS:
        blocks += [f"## {section}", *([told] if told else []), *_components(section, table_of)]
    return "\n\n".join(blocks) + "\n"


def _components(section: str, components: registry.Registry) -> Iterator[str]:
    """Yield a heading, a summary and a table for every component that has keys."""
    usual: set[Option] = set()
    if section == "runner":
        standard = components.get("standard")
        usual = set(options(standard.config))
        yield f"### {section}.name: standard"
        yield inline(standard.summary, no_link)
        yield keys_table(section, list(options(standard.config)), no_link)
    together: dict[tuple[Option, ...], list[str]] = {}
    for name in components.names():
        keys = tuple(key for key in options(components.get(name).config) if key not in usual)
        together.setdefault(keys, []).append(name)
    without = [f"`{name}`" for name in together.pop((), []) if name != "standard"]
    for keys, names in together.items() if section != "runner" else ():
        yield f"### {section}.name: {', '.join(names)}"
        summaries = [inline(components.get(name).summary, no_link) for name in names]
        listed = [f"- `{name}`: {told}" for name, told in zip(names, summaries, strict=True)]
        yield "\n".join(summaries if len(names) == 1 else listed)
        yield keys_table(section, keys, no_link)
    if without:
        yield f"Without {'further ' if usual else ''}keys: {', '.join(without)}."


def keys_table(section: str, keys: Sequence[Option], link: LinkTo) -> str:
    """Return the table of a section's keys."""
    if not keys:
        return "No keys."
    rows = [
        (f"`{section}.{key.key}`", key.accepted, key.default, _meaning(key, link)) for key in keys
    ]
    return table(["key", "accepted", "default", "meaning"], rows)


def _meaning(key: Option, link: LinkTo) -> str:
    text = re.sub(r"(?<!`)\bNone\b(?!`)", "``null``", key.meaning)
    return inline(re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", text), link)
