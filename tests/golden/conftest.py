"""The option ``--golden DIR``: which recorded files are run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.golden.harness import NUMBERS, find_files


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden",
        metavar="DIR",
        help="run every .npz below DIR through its adapter (default: tests/golden/numbers)",
    )


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Compute in one thread, as recorded; such small products only wait for a second one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "golden_file" not in metafunc.fixturenames:
        return
    # a default: when a parent folder is run, this file is read after the command line
    folder = metafunc.config.getoption("--golden", default=None) or NUMBERS
    try:
        files = find_files(folder)
    except FileNotFoundError as error:
        raise pytest.UsageError(str(error)) from error
    ids = [file.relative_to(folder).as_posix() for file in files]
    metafunc.parametrize("golden_file", files, ids=ids)
