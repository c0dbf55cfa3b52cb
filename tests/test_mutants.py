"""The tool that puts faults into a copy of the tree, on a toy tree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.helpers import ROOT
from tests.mutants import LIST, read_list, stale

SOURCE = "def double(x):\n    return 2 * x\n\n\ndef half(x):\n    return x / 2\n"
TEST = "from thing import double\n\n\ndef test_double():\n    assert double(3) == 6\n"
LIVING = {"name": "half is a third", "old": "x / 2", "new": "x / 3"}
KILLED = {"name": "double is triple", "old": "2 * x", "new": "3 * x"}


def tree(root: Path, *mutants: dict[str, str]) -> Path:
    """Write a git tree with a module, a test of half of it, and a list of mutants."""
    (root / "tests").mkdir(parents=True)
    (root / "thing.py").write_text(SOURCE)
    (root / "tests" / "test_thing.py").write_text(TEST)
    (root / "pyproject.toml").write_text('[tool.pytest.ini_options]\npythonpath = ["."]\n')
    entries = [{"file": "thing.py", "tests": "tests/test_thing.py", **m} for m in mutants]
    lines = [
        "\n".join(["[[things]]", *(f'{key} = "{value}"' for key, value in entry.items())])
        for entry in entries
    ]
    (root / LIST).write_text("\n".join(lines) + "\n")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    return root


def mutate(root: Path, least: float = 0.9) -> tuple[int, str]:
    """Run the tool, with the least share killed; return its status and what it prints."""
    code = (
        f"import sys, pathlib\nfrom tests import mutants\n"
        f"mutants.LIBRARIES, mutants.LEAST_SHARE = (), {least}\n"
        f"sys.exit(mutants.main([], pathlib.Path({str(root)!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


def test_killed_and_lived(tmp_path):
    status, said = mutate(tree(tmp_path, KILLED, LIVING))
    assert status == 1
    assert "killed  things: double is triple" in said and "LIVED   things: half is a" in said
    assert "things           2       1    50%" in said
    assert "not as the list says: half is a third" in said
    assert (tmp_path / "thing.py").read_text() == SOURCE


def test_one_that_is_explained_may_live_among_many(tmp_path):
    explained = {**LIVING, "lives": "nobody calls it"}
    root = tree(tmp_path, KILLED, explained)
    assert mutate(root)[0] == 1
    status, said = mutate(root, least=0.5)
    assert status == 0
    assert "said to live: things: half is a third: nobody calls it" in said


def test_one_that_is_said_to_live_must_not_be_killed(tmp_path):
    status, said = mutate(tree(tmp_path, {**KILLED, "lives": "no test calls it"}))
    assert status == 1 and "not as the list says: double is triple" in said


def test_nothing_runs_while_a_mutant_is_stale(tmp_path):
    gone = {"name": "gone", "old": "4 * x", "new": "5 * x"}
    twice = {"name": "twice", "old": "return", "new": "yield"}
    status, said = mutate(tree(tmp_path, KILLED, gone, twice))
    assert status == 1 and "killed" not in said
    assert "stale: 'gone': its old text is 0 times in thing.py, not once" in said
    assert "stale: 'twice': its old text is 2 times" in said and "2 of them stale" in said


def test_tests_that_fail_anyway_tell_nothing(tmp_path):
    root = tree(tmp_path, KILLED)
    (root / "tests" / "test_thing.py").write_text(TEST.replace("6", "7"))
    status, said = mutate(root)
    assert status == 1 and "do not pass without a mutant: FAILED" in said and "killed" not in said


def test_the_list_is_well_formed():
    mutants = read_list(ROOT)
    assert len(mutants) >= 60 and len({m.name for m in mutants}) == len(mutants)
    areas = {"metrics", "models", "common", "utils", "dataset", "runners"}
    assert {m.area for m in mutants} == areas
    for mutant in mutants:
        assert mutant.old != mutant.new and (ROOT / mutant.file).is_file()
        assert mutant.file.split("/")[0] == {"metrics": "common"}.get(mutant.area, mutant.area)
    assert stale(mutants, ROOT) == []
    assert stale([mutants[0]], ROOT / "docs") == [
        f"stale: '{mutants[0].name}': its old text is 0 times in {mutants[0].file}, not once; "
        f"write it anew in {LIST}, or take it out.",
        *(f"stale: '{mutants[0].name}': there is no {name}." for name in mutants[0].tests.split()),
    ]
