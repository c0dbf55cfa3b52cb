"""``main.py doctor``: what is here, what is missing, what it will cost."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from runners.commands.arguments import add_settings
from runners.doctor import machine
from runners.doctor.finding import Diagnosis, Finding, conclusion
from utils.errors import UserError
from utils.files import write_text
from utils.terminal import say

CANNOT_START = 2  # what is missing is the user's to mend
GROUPS = {
    "machine": "Machine", "runs": "Runs", "weights": "Weights of encoders", "data": "Data",
    "cost": "Cost",
}  # fmt: skip
STYLES = {
    "ok": "green", "missing": "bold red", "differs": "bold red", "warning": "yellow", "info": "",
}  # fmt: skip
WIDEST = 44  # characters of a name before what was found


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``doctor``."""
    text = "a file, or a name of `list sweeps`; left out: the machine and what ships"
    parser.add_argument("sweep", metavar="SWEEP", nargs="?", help=text)
    add_settings(parser, "backbone.weights=ViT-B-32.pt dataset.root=DIR")
    parser.add_argument("--output", metavar="DIR", help="folder of the runs, as for sweep")
    parser.add_argument("--json", metavar="FILE|-", help="write it as JSON; - prints that alone")


def run(options: argparse.Namespace) -> int:
    """Print what is found; exit code 0: it can start, 2: something is missing.

    Raises:
        UserError: a sweep that cannot be read, or settings that are not accepted.
    """
    found = _diagnose(options)
    text = json.dumps(found.plain(), indent=2)
    if options.json == "-":
        say(*text.split("\n"))
    else:
        _show(found)
        if options.json:
            write_text(Path(options.json), f"{text}\n")
    return 0 if found.can_start else CANNOT_START


def _diagnose(options: argparse.Namespace) -> Diagnosis:
    software = list(machine.software())
    if any(finding.blocks for finding in software):  # without them nothing else can be read
        name = options.sweep or "A sweep"
        return Diagnosis(options.sweep or "", tuple(software), {}, None, conclusion(name, software))
    from runners.doctor.diagnosis import diagnose_machine, diagnose_sweep
    from runners.sweeps.sweep import expand, read_sweep, sweep_file

    if options.sweep is None:
        return diagnose_machine()
    if "=" in options.sweep and not Path(options.sweep).exists():
        raise UserError(
            f"'{options.sweep}' stands where a sweep belongs: main.py doctor SWEEP "
            f"{options.sweep}; `list sweeps` names them."
        )
    path = sweep_file(options.sweep)
    sweep = read_sweep(path)
    configs = expand(sweep, path, options.settings, options.output)
    return diagnose_sweep(options.sweep, sweep, configs)


def _show(found: Diagnosis) -> None:
    """Print the table, what is missing with what gets it, and the sentence.

    Lines, no table: the library for tables may be missing, and a terminal must not fold commands.
    """
    width = min(max(len(finding.name) for finding in found.findings), WIDEST)
    for group, title in GROUPS.items():
        lines = [finding for finding in found.findings if finding.group == group]
        if lines:
            say("", [(title, "bold")])
        for line in lines:
            state = "" if line.state == "info" else line.state
            runs = f"  ({_runs(line.runs)})" if line.runs else ""
            rest = f"{line.name:{width}}  {line.found}{runs}"
            say([("  ", ""), (f"{state:8}", STYLES[line.state]), (rest, "")])
    for title, lines in (
        ("What is missing, and how to get it", [f for f in found.findings if f.blocks]),
        ("Worth a look", [f for f in found.findings if f.state == "warning" and f.get]),
    ):
        if lines:
            say("", [(title, "bold")], *_mending(lines))
    say("", [(found.sentence, "bold")])


def _mending(findings: list[Finding]) -> Iterator[str]:
    """Yield a line for each thing: what it is, and the command or file that gets it."""
    width = min(max(len(finding.name) for finding in findings), WIDEST)
    for finding in findings:
        yield f"  {finding.name:{width}}  {finding.get or finding.found}"


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"
