"""Mutants: realistic faults, put into a copy of the tree one at a time. Does a test notice?

``make mutate``, or ``python -m tests.mutants [WORD …]`` for those whose area, name or file holds
one of the words. The list is ``tests/mutants.toml``. For each mutant its related tests run in one
process until the first fails (killed) or all pass (lived); first they must pass without a mutant.
It ends with a table by area, and with status 1 if

- the old text of a mutant is not in its file exactly once (stale), which is told before any run,
- a mutant lives that the list does not explain, or one is killed that it says would live,
- less than nine in ten of an area are killed.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIST = "tests/mutants.toml"
LIMIT_S = 300  # of one run of tests; beyond it the mutant counts as killed
LEAST_SHARE = 0.9  # killed of an area
OURS = ("common", "dataset", "models", "runners", "utils", "tests", "main", "conftest")
LIBRARIES = (
    "torch.utils.data", "accelerate", "h5py", "numba", "omegaconf", "PIL.Image", "rich.table",
    "safetensors.torch", "scipy.optimize", "scipy.io",
)  # fmt: skip
_NO_TESTS = 5  # pytest's status then


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A fault.

    Attributes:
        area: what it counts for.
        name: what is wrong then.
        file: relative to the tree.
        old: text that the file holds once.
        new: what takes its place.
        tests: files, folders or tests (``file::test``) for pytest, separated by blanks.
        lives: why no test notices it; empty: one must.
    """

    area: str
    name: str
    file: str
    old: str
    new: str
    tests: str
    lives: str = ""

    def fits(self, words: Sequence[str]) -> bool:
        """Return whether one of the words is in its area, name or file; without words, always."""
        text = f"{self.area} {self.name} {self.file}"
        return not words or any(word in text for word in words)


def read_list(root: Path) -> list[Mutant]:
    """Return the mutants of a tree, in the order of its list."""
    entries = tomllib.loads((root / LIST).read_text(encoding="utf-8"))
    return [Mutant(area, **entry) for area, found in entries.items() for entry in found]


def stale(mutants: Sequence[Mutant], root: Path) -> list[str]:
    """Return a sentence for each mutant that cannot be put in."""
    sentences = []
    for mutant in mutants:
        file = root / mutant.file
        times = file.read_text(encoding="utf-8").count(mutant.old) if file.is_file() else 0
        if times != 1:
            sentences.append(
                f"stale: '{mutant.name}': its old text is {times} times in {mutant.file}, not "
                f"once; write it anew in {LIST}, or take it out."
            )
        missing = [w for w in mutant.tests.split() if not (root / w.split("::")[0]).exists()]
        sentences += [f"stale: '{mutant.name}': there is no {name}." for name in missing]
    return sentences


def copy_tree(root: Path, target: Path) -> None:
    """Copy the files of a git tree that are not ignored, tracked or not."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=root, check=True, capture_output=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target / name)


@contextlib.contextmanager
def put_in(mutant: Mutant, root: Path, number: int) -> Iterator[None]:
    """Have the fault in the tree while the block runs."""
    file = root / mutant.file
    text, before = file.read_text(encoding="utf-8"), file.stat()
    file.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    stamp = before.st_mtime + 10 * (number + 1)  # compiled code is known by time and size
    os.utime(file, (stamp, stamp))
    try:
        yield
    finally:
        file.write_text(text, encoding="utf-8")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def run_tests(words: Sequence[str], root: Path, limit_s: float = LIMIT_S) -> tuple[str, str]:
    """Return ``passed``, ``failed`` or ``no end``, and the line of pytest's that says most.

    The tests run in a fork of this process, which has the libraries already: to load them takes
    longer than most tests.
    """
    os.environ["OMP_NUM_THREADS"] = "1"  # before the first of them is loaded
    for library in LIBRARIES:
        importlib.import_module(library)
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        if not (child := os.fork()):
            _in_child(words, root, output.fileno())
        limit = time.monotonic() + limit_s
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > limit:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return "no end", f"no end after {limit_s} s"
            time.sleep(0.02)
        output.seek(0)
        lines = output.read().strip().splitlines() or ["nothing"]
    said = next((line for line in lines if line.startswith(("FAILED", "ERROR"))), lines[-1])
    status = os.waitstatus_to_exitcode(ended[1])
    return "passed" if status in (0, _NO_TESTS) else "failed", said


def _in_child(words: Sequence[str], root: Path, output: int) -> NoReturn:
    """Run the tests of the tree ``root``, whose modules are not those of this process; exit."""
    status = 70
    try:
        os.setsid()
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(root)
        for name in [n for n in sys.modules if n.split(".")[0] in OURS]:
            del sys.modules[name]
        elsewhere = [path for path in sys.path if path and Path(path).resolve() != ROOT]
        sys.path[:] = [str(root), *elsewhere]
        status = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *words])
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(int(status))


def table(mutants: Sequence[Mutant], killed: Sequence[bool]) -> tuple[str, bool]:
    """Return the table by area, and whether enough of each are killed."""
    lines, enough = [f"{'area':<10} mutants  killed  share"], True
    for area in [*dict.fromkeys(mutant.area for mutant in mutants), "all"]:
        of_area = [k for m, k in zip(mutants, killed, strict=True) if area in (m.area, "all")]
        share = sum(of_area) / max(1, len(of_area))
        enough &= share >= LEAST_SHARE
        lines.append(f"{area:<10} {len(of_area):>7}  {sum(of_area):>6}  {share:>5.0%}")
    return "\n".join(lines), enough


def mutate(root: Path, mutants: Sequence[Mutant]) -> bool:
    """Try the mutants on a copy of ``root`` and print what comes of it; return whether all is well.

    The tree itself is not touched.
    """
    killed: list[bool] = []
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder) / "tree"
        copy_tree(root, copy)
        files = dict.fromkeys(word for mutant in mutants for word in mutant.tests.split())
        found, last = run_tests(list(files), copy, 60 * LIMIT_S)
        if found != "passed":
            print(f"The tests do not pass without a mutant: {last}")
            return False
        print(f"without a mutant: {last}", flush=True)
        for number, mutant in enumerate(mutants):
            start = time.perf_counter()
            with put_in(mutant, copy, number):
                found, last = run_tests(mutant.tests.split(), copy)
            killed.append(found != "passed")
            word = "killed" if killed[-1] else "LIVED "
            seconds = f"{time.perf_counter() - start:.0f} s"
            print(f"{word}  {mutant.area}: {mutant.name}  ({seconds}; {last[:90]})", flush=True)
            if killed[-1] == bool(mutant.lives):
                wrong.append(mutant.name)
    text, enough = table(mutants, killed)
    print(f"\n{text}\n")
    for mutant in mutants:
        if mutant.lives:
            print(f"said to live: {mutant.area}: {mutant.name}: {mutant.lives}")
    for name in wrong:
        print(f"not as the list says: {name}")
    return enough and not wrong


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Run the mutants that the words choose; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("words", nargs="*", help="part of an area, a name or a file")
    parser.add_argument("--check", action="store_true", help="only look for stale mutants")
    options = parser.parse_args(arguments)
    mutants = [mutant for mutant in read_list(root) if mutant.fits(options.words)]
    sentences = stale(mutants, root)
    print("".join(f"{sentence}\n" for sentence in sentences), end="")
    if sentences or not mutants:
        print(f"{len(mutants)} mutants, {len(sentences)} of them stale")
        return 1
    if options.check:
        print(f"{len(mutants)} mutants, none stale")
        return 0
    return 0 if mutate(root, mutants) else 1


if __name__ == "__main__":
    sys.exit(main())
