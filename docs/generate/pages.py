"""The pages: one for each method, their table, and the tables of README."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from docs.generate import facts
from docs.generate.catalogue import components_page, keys_table, settings_page
from docs.generate.docstrings import Docstring, Section, inline, parse
from docs.generate.facts import DOCS, ROOT, Method
from docs.generate.markdown import MARK, replace_block, slug, table, tables_below
from docs.generate.recipes import recipes_section, releases_table, shared_deviations


def pages() -> dict[Path, str]:
    """Return every generated file with its text."""
    made = {DOCS / "methods" / f"{one.stem}.md": method_page(one) for one in facts.methods()}
    made[DOCS / "methods" / "index.md"] = methods_index()
    made[DOCS / "components.md"] = components_page()
    made[DOCS / "settings.md"] = settings_page()
    made[DOCS / "coming_from.md"] = coming_from(
        (DOCS / "coming_from.md").read_text(encoding="utf-8")
    )
    made[ROOT / "README.md"] = readme((ROOT / "README.md").read_text(encoding="utf-8"))
    return made


def method_page(method: Method) -> str:
    """Return the page of a method."""
    top = _docstring(method.file)
    stems = {one.stem for one in facts.methods()}
    parts = [part for part in _parts(method.file) if part.stem not in stems]
    sections = [
        MARK.format(f"`{method.path}` and its configurations"),
        f"# {top.title}",
        top.citation,
        _summary(method, parts),
        _commands(method),
        *_body(top, "Idea and equations"),
        *_part_sections(parts),
        _configurations(method),
        _options(method),
        _recorded(method),
        recipes_section(method),
        _figures(method),
        _published(method),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _link(module: str) -> str | None:
    """Return where a module is, seen from a page of ``docs/methods/``."""
    file = ROOT / f"{module.replace('.', '/')}.py"
    if any(one.file == file for one in facts.methods()):
        return f"{file.stem}.md"
    return f"../../{file.relative_to(ROOT).as_posix()}" if file.exists() else None


def _source(file: Path) -> str:
    name = file.relative_to(ROOT).as_posix()
    return f"[`{name}`](../../{name})"


def _docstring(file: Path) -> Docstring:
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or file.stem
    return parse(text, _link)


def _parts(file: Path) -> list[Path]:
    """Return the modules of ``models/`` that the docstring at the top of a file refers to."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    names = dict.fromkeys(re.findall(r":mod:`(models\.[\w.]+)`", text))
    return [ROOT / f"{name.replace('.', '/')}.py" for name in names]


def _body(top: Docstring, title: str, level: int = 2) -> list[str]:
    first = [Section(title, top.sections[0].blocks)] if top.sections else []
    mark = "#" * level
    return [
        "\n\n".join([f"{mark} {section.title}", *section.blocks])
        for section in [*first, *top.sections[1:]]
        if section.blocks
    ]


def _part_sections(parts: list[Path]) -> list[str]:
    if not parts:
        return []
    made = ["## Parts that stand in files of their own"]
    for part in parts:
        top = _docstring(part)
        made += [f"### {part.name}", f"{_source(part)}, {_lines(part)} lines. {top.title}."]
        made += [top.citation] if top.citation else []
        for section in top.sections:
            made += [f"**{section.title}.**"] if section.title else []
            made += section.blocks
    return made


def _lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def _summary(method: Method, parts: list[Path]) -> str:
    runners = dict.fromkeys(c.sections.get("runner", "standard") for c in method.configs)
    numbers = facts.recorded(method)
    runs = sum(one.case.startswith("traj_") for one in numbers)
    outputs = sum(one.outputs for one in numbers)
    held = f"{outputs} recorded outputs of {len(numbers)} file{'s' * (len(numbers) > 1)}"
    held += f", among them {runs} whole training run{'s' * (runs > 1)}" if runs else ""
    rows = [
        ("published", method.venue or "no"),
        ("task", method.task),
        ("configurations", ", ".join(f"`{config.name}`" for config in method.configs)),
        ("trained by runner", ", ".join(f"`{name}`" for name in runners)),
        ("file", ", ".join(f"{_source(f)}, {_lines(f)} lines" for f in [method.file, *parts])),
        ("held to", f"[{held}](#recorded-numbers)" if numbers else "no recorded numbers"),
    ]
    return table(["", ""], rows)


def _commands(method: Method) -> str:
    commands = [command for config in method.configs for command in config.commands]
    return "\n".join(["## Run it", "", "```bash", *commands, "```"])


def _configurations(method: Method) -> str:
    blocks = ["## Configuration"]
    for config in method.configs:
        name = f"configs/method/{config.name}.yaml"
        blocks += [f"[`{name}`](../../{name}):", f"```yaml\n{config.text.rstrip()}\n```"]
    return "\n\n".join(blocks)


def _options(method: Method) -> str:
    blocks = [
        "## Options",
        "Keys of the dataclasses in the code, which are the schema of YAML and command line. A "
        "configuration above may set another value than the default.",
    ]
    seen: dict[type, str] = {}
    for section, entry in facts.components(method):
        if section == "runner" and entry.name in ("standard", "fit"):
            continue
        blocks += [f"### {section}: {entry.name}", inline(entry.summary, _link)]
        if entry.config in seen:
            blocks.append(f"The same keys as `{seen[entry.config]}`.")
            continue
        seen[entry.config] = f"{section}: {entry.name}"
        keys = list(facts.options(entry.config))
        if section == "runner":
            usual = set(facts.options(facts.registry.RUNNERS.get("standard").config))
            keys = [key for key in keys if key not in usual]
            blocks.append("Beside the [keys of every runner](../settings.md#runner):")
        blocks.append(keys_table(section, keys, _link))
    return "\n\n".join(blocks)


def _recorded(method: Method) -> str:
    numbers = facts.recorded(method)
    head = "## Recorded numbers"
    if not numbers:
        return f"{head}\n\nNone is recorded for this method."
    told = (
        "Inputs and outputs recorded from reference implementations, compared by "
        "`python -m pytest tests/golden` ([how](../../tests/golden/README.md)). `traj_*` are whole "
        "training runs."
    )
    rows = [(f"`{one.case}`", inline(one.compares, _link), str(one.outputs)) for one in numbers]
    left_out = [
        f"- `{key}` of `{one.case}`: {inline(reason, _link)}"
        for one in numbers
        for key, reason in one.left_out.items()
    ]
    blocks = [head, told, table(["case", "what", "outputs compared"], rows)]
    if left_out:
        blocks += ["Not compared, and why:", "\n".join(left_out)]
    return "\n\n".join(blocks)


def _figures(method: Method) -> str:
    names = {config.name for config in method.configs}
    blocks = []
    for place in facts.notes()["figures"]:
        file, section = place["file"], place["section"]
        text = (DOCS / file).read_text(encoding="utf-8")
        for head, rows in tables_below(text, section):
            mine = [row for row in rows if _config_of(row[0]) in names]
            if head[0] == "method" and mine:
                link = f"[{section}](../{file}#{slug(section)})"
                blocks += [f"{link}: {place['says']}.", table(head, mine)]
    if not blocks:
        blocks = ["None is in the documents yet: `python main.py sweep` measures, `report` shows."]
    return "\n\n".join(["## Figures of ours", *blocks])


def _config_of(cell: str) -> str:
    found = re.match(r"`?(\w+)", cell)
    return found[1] if found else ""


def _published(method: Method) -> str:
    rows = facts.published(method)
    head = "## Published figures"
    if not rows:
        return f"{head}\n\nNone is collected in [`docs/published.csv`](../published.csv)."
    blocks = [
        head,
        "From [`docs/published.csv`](../published.csv). Sources differ in protocol, encoder and "
        "choice of the epoch: figures compare within one source, and with ours only where "
        "`python main.py report RUNS --published docs/published.csv` finds the same recipe.",
    ]
    for paper in dict.fromkeys(row["paper_or_repo"] for row in rows):
        mine = [row for row in rows if row["paper_or_repo"] == paper]
        blocks += [f"**{paper}.** {_sentence(facts.notes()['conditions'][paper])}", _pivot(mine)]
        sources = dict.fromkeys(row["source"] for row in mine)
        blocks.append(f"Source: {inline('; '.join(sources), _link)}.")
    return "\n\n".join(blocks)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _pivot(rows: list[dict[str, str]]) -> str:
    bits = sorted({row["bits"] for row in rows}, key=int)
    lines: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in rows:
        key = row["dataset"], row["direction"], row["metric"]
        lines.setdefault(key, {})[row["bits"]] = row["value"]
    return table(
        ["dataset", "direction", "measure", *(f"{one} bits" for one in bits)],
        [[*key, *(values.get(one, "–") for one in bits)] for key, values in lines.items()],
    )


def coming_from(text: str) -> str:
    """Return docs/coming_from.md with its table of releases and what all recipes share."""
    text = replace_block(text, "releases", releases_table())
    return replace_block(text, "shared", shared_deviations())


def methods_index() -> str:
    """Return the page that lists the methods."""
    head = (
        "# Methods\n\nOne page for each file in `models/` that is a method: idea and equations, "
        "deviations, options, the numbers it is held to, figures of ours and published ones."
    )
    toctree = "\n".join(f"{one.name} <{one.stem}>" for one in facts.methods())
    rows = [
        (f"[{one.label}]({one.stem}.md)", one.venue or "–", one.task, _names(one), _held(one))
        for one in facts.methods()
    ]
    return "\n\n".join([
        MARK.format("`models/`, `configs/method/` and `docs/methods.yaml`"),
        head,
        table(["method", "venue", "task", "`method=`", "recorded files (outputs)"], rows),
        f"```{{toctree}}\n:hidden:\n\n{toctree}\n```\n",
    ])  # fmt: skip


def _held(method: Method) -> str:
    numbers = facts.recorded(method)
    return f"{len(numbers)} ({sum(one.outputs for one in numbers)})" if numbers else "–"


def _names(method: Method) -> str:
    return ", ".join(f"`{config.name}`" for config in method.configs)


def readme(text: str) -> str:
    """Return README with its generated tables."""
    rows = [
        (f"[{one.label}](docs/methods/{one.stem}.md)", one.venue or "–", one.task, _names(one),
         f"[{one.path}]({one.path})")
        for one in facts.methods()
    ]  # fmt: skip
    content = table(["method", "venue", "task", "config", "file"], rows)
    text = replace_block(text, "methods", content)
    for kind in ("datasets", "backbones"):
        files = sorted((ROOT / "configs" / kind[:-1]).glob("*.yaml"))
        found = [_file_row(file) for file in files if _is_complete(file)]
        content = table([f"`{kind[:-1]}=`", "what it is"], found)
        text = replace_block(text, kind, content)
    return text


def _is_complete(file: Path) -> bool:
    """Whether a clone can use a configuration: it reads no file beside the repository."""
    return ": ../" not in file.read_text(encoding="utf-8")


def _file_row(file: Path) -> tuple[str, str]:
    first = file.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ")
    return f"`{file.stem}`", inline(first, _link)
