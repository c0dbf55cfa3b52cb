"""One file per command of the command line, one convention, and a quick ``--help``."""

import ast
import json
import subprocess
import sys

import main
from tests.helpers import ROOT

FOLDER = ROOT / "runners" / "commands"
PARTS = {"__init__", "arguments"}


def test_every_file_is_a_command_and_every_command_a_file():
    assert {file.stem for file in FOLDER.glob("*.py")} - PARTS == set(main.COMMANDS)
    assert {file.stem for file in FOLDER.glob("*.py")} >= PARTS


def test_every_command_has_options_work_and_a_docstring():
    for name in main.COMMANDS:
        tree = ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
        functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert {"add_options", "run"} <= set(functions), name
        assert [argument.arg for argument in functions["run"].args.args] == ["options"], name
        assert (ast.get_docstring(tree) or "").startswith(f"``main.py {name}``: "), name


def test_help_imports_no_library_and_no_other_command():
    code = """
import contextlib, io, json, sys
import main
def parse(*words):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main._parse(words)
    return [name for name in sys.modules if name.startswith("runners.")]
modules = {"": parse("--help")}
modules.update({name: parse(name, "--help") for name in main.COMMANDS})
print(json.dumps([modules, sorted(sys.modules)]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    modules, everything = json.loads(done.stdout)
    assert modules[""] == []
    assert modules["list"] == ["runners.commands", "runners.commands.list"]
    assert {"torch", "numpy", "dataset", "models"} & set(everything) == set()
