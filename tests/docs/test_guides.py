"""Guides that say so are carried out as printed; every command in the documents is valid.

A guide with the line ``<!-- executed -->`` is worked through in an empty folder, block by block:

- a code block behind a line that ends in "`path/to/file`:" is written to that file;
- of a ``console`` block, each ``$ python …`` line is run, and the lines below it have to be printed
  in their order. A line ``…`` stands for whatever is left out, and so does ``…`` inside a line.
  Numbers need not be equal to the last digit: see :func:`is_line`. ``RUN_DIR`` in a line is the
  run folder that was printed last.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import pytest

import main
from common import registry
from common.config.layers import parse_overrides
from common.config.run_config import COMPONENTS, DataConfig, EvalConfig, compose
from runners.generation.generate import METHODS
from runners.sweeps.sweep import read_sweep, sweep_file
from tests.helpers import ROOT
from utils.errors import UserError

MARK = "<!-- executed -->"
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
GUIDES = [p for p in PAGES if MARK in p.read_text(encoding="utf-8").splitlines()]
FENCE = re.compile(
    r"(?:^[^\n]*`(?P<name>[^`\n]+)`:\n+)?^```(?P<language>\w*)\n(?P<content>.*?)^```$",
    flags=re.DOTALL | re.MULTILINE,
)
MAP_MAY_DIFFER = 0.2  # other processors, other rounding, another order of training
HEX = re.compile(r"(?<=-)[0-9a-f]{8}\b")  # of a run folder: it changes with any new setting


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block: its language, its content, and the file that it is to be written to."""

    language: str
    content: str
    file: str | None


@dataclasses.dataclass(frozen=True)
class Command:
    """A line behind ``$`` and the lines that it has to print."""

    line: str
    printed: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """2 where the mistake of a user is shown, 1 where something differs, else 0."""
        told = {line.split(" ")[0] for line in self.printed}
        return 2 if "error:" in told else int("differs:" in told)


def blocks(text: str) -> list[Block]:
    return [
        Block(found["language"], found["content"], found["name"]) for found in FENCE.finditer(text)
    ]


def commands(console: str) -> list[Command]:
    found: list[tuple[str, list[str]]] = []
    for line in console.replace("\\\n", " ").splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif found and line.strip():
            found[-1][1].append(line)
    return [Command(line, tuple(printed)) for line, printed in found]


def plain(line: str) -> str:
    """Return a line without what depends on the width of columns, on time and on settings."""
    line = re.sub(r"([━─])\1+", r"\1", line)
    return " ".join(HEX.sub("········", line).split())


def is_line(expected: str, printed: str) -> bool:
    """Return whether a printed line is the expected one.

    A number with one decimal is a time and may be any; one with more is a metric or a loss, and may
    differ by 0.2, for sets are tiny; everything else has to be equal.
    """
    number = r"(\d+\.\d+)"
    pieces = re.split(rf"{number}|(…)", plain(expected))
    pattern, wanted = "", []
    for piece in pieces:
        if piece is None:
            continue
        if re.fullmatch(number, piece):
            pattern += number
            wanted.append(piece)
        else:
            pattern += ".*" if piece == "…" else re.escape(piece)
    found = re.fullmatch(pattern, plain(printed))
    return found is not None and all(
        len(a.partition(".")[2]) == 1 or abs(float(a) - float(b)) <= MAP_MAY_DIFFER
        for a, b in zip(wanted, found.groups(), strict=True)
    )


def first_missing(expected: tuple[str, ...], printed: str) -> str | None:
    """Return the first expected line that is not there behind those before it."""
    lines = iter(printed.splitlines())
    for line in expected:
        if line.strip() != "…" and not any(is_line(line, other) for other in lines):
            return line
    return None


def run(line: str) -> int:
    """Carry out ``python FILE.py ARGUMENTS`` in this process; return its exit code."""
    words = shlex.split(line, comments=True)
    assert words[0] == "python", f"only python is run: {line}"
    if words[1] == "main.py":
        return main.main(words[2:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", words[1:])
        runpy.run_path(words[1], run_name="__main__")
    return 0


def last_run(printed: str) -> str | None:
    """Return the run folder that ``train`` prints last."""
    last = (printed.strip().splitlines() or [""])[-1]
    return last if last and (Path(last) / "config.yaml").is_file() else None


@contextlib.contextmanager
def registered_as_before() -> Iterator[None]:
    """Forget what a command's plugins register, as another process would."""
    tables = [table for table in vars(registry).values() if isinstance(table, registry.Registry)]
    for table in tables:
        table.names()  # all there is, before
    kept = [dict(table._entries) for table in tables]
    modules = set(sys.modules)
    try:
        yield
    finally:
        for table, entries in zip(tables, kept, strict=True):
            table._entries.clear()
            table._entries.update(entries)
        for name in [n for n in sys.modules if n.startswith("plugin_") and n not in modules]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A folder for generated pictures and features, which the guides share."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_a_guide_works_as_printed(guide, cache, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HASHING_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    done, run_dir = 0, ""
    for block in blocks(guide.read_text(encoding="utf-8")):
        if block.file is not None:
            file = tmp_path / block.file
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.content, encoding="utf-8")
        for command in commands(block.content) if block.language == "console" else []:
            with registered_as_before():
                code = run(command.line.replace("RUN_DIR", run_dir))
            out, err = capsys.readouterr()
            told = f"{command.line}\n{out}\n{err}"
            run_dir = last_run(out) or run_dir
            assert code == command.exit_code, told
            missing = first_missing(command.printed, f"{out}\n{err}")
            assert missing is None, f"not printed: {missing}\n{told}"
            done += 1
    assert done > 0


def test_the_guides_to_adding_something_are_executed():
    stems = {guide.stem for guide in GUIDES}
    assert {"add_a_method", "add_a_loss", "add_a_dataset", "add_a_backbone"} <= stems


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("│ csq │ 0.5225 │ 1.7 │", "│ csq   │  0.5101 │  12.9 │", True),
        ("│ csq │ 0.5225 │", "│ csq │ 0.2101 │", False),
        ("│ csq │ 0.5225 │", "│ dpn │ 0.5225 │", False),
        ("runs/a-b-32bit-s0-770a9b10", "runs/a-b-32bit-s0-00aa9b10", True),
        ("runs/a-b-32bit-s0-770a9b10", "runs/a-b-64bit-s0-770a9b10", False),
        ("12 bits, … sound", "12 bits, single-label  sound", True),
        ("  16 bits", "16 bits", True),
    ],
)
def test_lines_are_compared_up_to_times_and_small_differences(expected, printed, same):
    assert is_line(expected, printed) == same


def test_lines_have_to_come_in_their_order():
    assert first_missing(("a", "…", "c"), "a\nb\nc") is None
    assert first_missing(("c", "a"), "a\nb\nc") == "a"


# ---------------------------------------------------------------------------------------------
# Every command that a document names, whether or not it is executed.

INLINE = re.compile(
    r"`(?:\$ )?((?:\w+=\S+ )*(?:python|torchrun|accelerate)[^`\n]*main\.py [^`\n]+)`"
)


def named_commands(text: str) -> list[str]:
    """Return what stands behind ``main.py`` in the blocks and in the running text of a page.

    Of a guide that is executed, the ``console`` blocks are left out: those are run.
    """
    is_run = MARK in text.splitlines()
    languages = ("", "bash", "sh") if is_run else ("", "bash", "sh", "console")
    lines: list[str] = []
    for block in blocks(text):
        if block.language in languages and block.file is None:
            lines += block.content.replace("\\\n", " ").splitlines()
    lines += INLINE.findall(FENCE.sub("", text))
    found = [re.search(r"(?:^|\s)main\.py (\w.*)", line) for line in lines]
    return [match[1] for match in found if match is not None]


CASES = [
    pytest.param(page, command, id=f"{page.stem}: {command[:70]}")
    for page in PAGES
    for command in dict.fromkeys(named_commands(page.read_text(encoding="utf-8")))
]


def words_of(command: str) -> list[str]:
    """Return the words of a command without ``…``, ``[optional words]`` and what follows ``|``."""
    words = shlex.split(re.sub(r" \[[^\]]*\]| \|.*", "", command), comments=True)
    return [word for word in words if word not in ("…", "...")]


def is_placeholder(word: str) -> bool:
    """Return whether a word stands for a name of the reader's own: ``METHOD_OR_FILE.py``, ``…``."""
    return word in ("…", "...") or bool(re.fullmatch(r"[A-Z][A-Z_]*", word.split(".")[0]))


def is_own_file(word: str) -> bool:
    """Return whether a word names a file that the reader writes."""
    return word.endswith((".py", ".yaml", ".yml")) and not (ROOT / word).exists()


@pytest.mark.parametrize(("page", "command"), CASES)
def test_a_command_is_valid(page, command, capsys):
    words = words_of(command)
    if len(words) == 1:  # a command is spoken of
        words.append("--help")
    try:
        options = main._parse(words)
    except SystemExit as end:
        assert end.code == 0, capsys.readouterr().err  # --help
        return
    settings = list(getattr(options, "settings", []))
    parse_overrides(settings)
    known = {"prepare": "dataset", "verify": "dataset", "generate": "dataset", "check": "target"}
    kind = words[0]
    if kind == "sweep" and not is_own_file(options.sweep) and not is_placeholder(options.sweep):
        read_sweep(sweep_file(options.sweep))
    if kind in known:
        name = getattr(options, known[kind])
        if not is_placeholder(name) and not is_own_file(name):
            group = "method" if kind == "check" else "dataset"
            settings.insert(0, f"{group}={name.removeprefix('dataset=')}")
    if kind == "generate":
        assert options.method in METHODS
        settings.insert(0, f"method={options.method}")
    has_plugin = any(word.startswith("plugins=") or is_own_file(word) for word in settings)
    if kind in ("train", "check", "verify", "prepare", "generate") and not has_plugin:
        try:
            compose([word for word in settings if not is_placeholder(word.partition("=")[2])])
        except UserError as error:
            pytest.fail(f"{page.name}: {command}: {error}")


KEY = re.compile(
    r"`((?:dataset|backbone|model|loss|optim|schedule|runner|data|eval)(?:\.[a-z][a-z_0-9]*)+)"
    r"(?:=[^`]*)?`"
)


def keys_of(config: type, path: str) -> set[str]:
    """Return the dotted keys of a dataclass, those of dataclasses in it included."""
    found, hints = set(), get_type_hints(config)
    for field in dataclasses.fields(config):
        found.add(f"{path}.{field.name}")
        for hint in (hints[field.name], type(field.default)):
            if dataclasses.is_dataclass(hint) and isinstance(hint, type):
                found |= keys_of(hint, f"{path}.{field.name}")
    return found


@pytest.fixture(scope="module")
def known_keys():
    """Every key of every registered component, ``data`` and ``eval``."""
    keys = keys_of(DataConfig, "data") | keys_of(EvalConfig, "eval")
    for section, table in COMPONENTS.items():
        keys.add(f"{section}.name")
        for name in table.names():
            keys |= keys_of(table.get(name).config, section)
    groups = {"backbone", "head", "loss"}
    for table in (registry.MODELS, registry.LOSSES):
        groups |= {group for name in table.names() for group in table.get(name).groups}
    return keys | {"optim.lr"} | {f"optim.groups.{group}.lr" for group in groups}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_settings_that_a_page_names_exist(page, known_keys):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    if "| there | here |" in text:  # the first column has the keys of others
        text = re.sub(r"^\|[^|]*\|", "|", text, flags=re.MULTILINE)
    named = {match[1] for match in KEY.finditer(text)}
    files = {key for key in named if key.endswith((".py", ".base", ".yaml", ".csv"))}
    assert named - known_keys - files == set()


def test_there_are_commands_of_every_kind():
    first = {command.split()[0] for _, command in (case.values for case in CASES)}
    assert first >= {
        "check", "encode", "evaluate", "export", "generate", "list", "metrics", "prepare",
        "report", "search", "sweep", "train", "verify",
    }  # fmt: skip
