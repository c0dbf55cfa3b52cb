"""The machine: Python, packages, PyTorch, GPUs, cores, memory."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from runners.doctor.finding import Finding
from utils.files import readable
from utils.memory import ram

PROJECT_ROOT = Path(__file__).resolve().parents[2]
LEAST_PYTHON = (3, 11)
SHOWN = 4  # packages in a line
OPTIONAL = {
    "requirements-launchers.txt": "sweep --launcher ray or submitit",
    "requirements-docs.txt": "make docs",
}
"""Files of requirements that a sweep by itself does not need, and what each is for."""


def software() -> Iterator[Finding]:
    """Yield Python and the packages; none of them is imported."""
    version, least = ".".join(map(str, sys.version_info[:3])), ".".join(map(str, LEAST_PYTHON))
    if sys.version_info >= LEAST_PYTHON:
        yield Finding("machine", "Python", "ok", version)
    else:
        get = f"install Python {least} or newer, then: make PYTHON=python{least}"
        yield Finding("machine", "Python", "missing", f"{version}, {least} is needed", get)
    yield _packages("requirements.txt")
    for file, purpose in OPTIONAL.items():
        yield _packages(file, purpose)


def hardware() -> Iterator[Finding]:
    """Yield PyTorch's CUDA, the GPUs, cores and memory."""
    yield from _accelerator()
    yield Finding("machine", "CPU", "info", f"{cores()} cores")
    memory, available = ram()
    if memory:
        found = f"{readable(memory)}, {readable(available)} of it free"
        yield Finding("machine", "memory", "info", found)


def _packages(file: str, optional_for: str = "") -> Finding:
    """Compare the installed packages with a file of requirements."""
    wanted = requirements(PROJECT_ROOT / file)
    absent, others = [], []
    for name, version in wanted.items():
        try:
            installed = importlib.metadata.version(name).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            absent.append(name)
            continue
        if version and installed != version:
            others.append(f"{name} {installed} instead of {version}")
    title, get = f"packages, {file}", f"pip install -r {file}"
    if optional_for and absent:
        found = f"not installed: {_some(absent)}; only for {optional_for}"
        return Finding("machine", title, "info", found)
    if absent:
        found = f"{len(absent)} of {len(wanted)} are not installed: {_some(absent)}"
        return Finding("machine", title, "missing", found, get)
    if others:
        return Finding("machine", title, "warning", _some(others), get)
    return Finding("machine", title, "ok", f"{len(wanted)} of {len(wanted)}, versions as stated")


def requirements(file: Path) -> dict[str, str]:
    """Return name → version (empty where none is pinned) of a file of requirements.

    Files that it includes are left out, and so is all where the file is not there.
    """
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    found = (re.match(r"([A-Za-z][\w.-]*)(?:\[.*?\])?\s*(?:==\s*([\w.]+))?", ln) for ln in lines)
    return {match[1]: match[2] or "" for match in found if match}


def _some(words: list[str]) -> str:
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return f"{', '.join(words[:SHOWN])}{more}"


def _accelerator() -> Iterator[Finding]:
    """Yield PyTorch's CUDA and the GPUs."""
    import torch

    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    yield Finding("machine", "PyTorch", "ok", f"{torch.__version__}, {built}")
    devices = gpus()
    for number, (name, total, free) in enumerate(devices):
        found = f"{name}, {readable(total)}, {readable(free)} of it free"
        yield Finding("machine", f"GPU {number}", "ok", found)
    if not devices and Path("/dev/nvidia0").exists():
        found = "there is one, but PyTorch cannot use it: driver and CUDA build do not fit"
        get = "install the PyTorch build for your driver (pytorch.org/get-started)"
        yield Finding("machine", "GPU", "warning", found, get)
    elif not devices:
        yield Finding("machine", "GPU", "info", "none: runs train on the CPU")


def gpus() -> list[tuple[str, int, int]]:
    """Return name, bytes and free bytes of every GPU that PyTorch can use."""
    import torch

    found = []
    with contextlib.suppress(RuntimeError, AssertionError):
        for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
            free, total = torch.cuda.mem_get_info(number)
            found.append((torch.cuda.get_device_name(number), total, free))
    return found


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
