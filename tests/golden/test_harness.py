"""The harness itself: nothing passes by not being looked at."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.golden import harness
from tests.golden.harness import (
    NUMBERS,
    Adapter,
    Case,
    GoldenError,
    adapter,
    case_name,
    check_complete,
    check_file,
    find_files,
    load_adapters,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test register adapters that are gone afterwards."""
    monkeypatch.setattr(harness, "ADAPTERS", dict(load_adapters()))


def write(folder: Path, name: str, **arrays: object) -> Path:
    path = folder / f"{name}.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def changed(tmp_path: Path, name: str, key: str, delta: float) -> Path:
    """Return a copy of a recording whose ``key`` is off by ``delta``."""
    with np.load(NUMBERS / f"{name}_a.npz") as archive:
        arrays = dict(archive)
    arrays[key] = arrays[key] + np.asarray(delta).astype(arrays[key].dtype)
    return write(tmp_path, f"{name}_z", **arrays)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("a/dcmht_loss_b.npz", "dcmht_loss"),
        ("traj_dchmt_orig_a.npz", "traj_dchmt_orig"),
        ("map_minus1_c.npz", "map_minus1"),
        ("alone.npz", "alone"),
    ],
)
def test_case_is_the_stem_without_the_last_letter(file: str, name: str) -> None:
    assert case_name(file) == name


def test_every_adapter_has_a_recording_and_every_recording_an_adapter() -> None:
    assert {case_name(file) for file in find_files(NUMBERS)} == set(load_adapters())
    assert all(entry.function.__doc__ for entry in load_adapters().values())


def test_a_file_without_adapter_fails_and_names_what_is_missing(tmp_path: Path) -> None:
    path = write(tmp_path, "nobody_knows_a", out_x=np.zeros(2))
    with pytest.raises(GoldenError, match=r"no adapter for the golden case 'nobody_knows'"):
        check_file(path)


@pytest.mark.usefixtures("registered")
def test_an_adapter_that_skips_a_result_fails(tmp_path: Path) -> None:
    @adapter("half")
    def half(case: Case) -> None:
        case.close("out_a", np.ones(2))

    path = write(tmp_path, "half_a", out_a=np.ones(2), out_b=np.ones(2))
    with pytest.raises(GoldenError, match=r"compares nothing with out_b"):
        check_file(path)


@pytest.mark.usefixtures("registered")
def test_an_adapter_that_does_not_read_a_constant_fails_where_that_is_asked(tmp_path: Path) -> None:
    @adapter("deaf", not_read={"cfg_note*": "words"})
    def deaf(case: Case) -> None:
        case.close("out_a", np.ones(2))

    path = write(tmp_path, "deaf_a", out_a=np.ones(2), cfg_note_1="x", cfg_alpha=0.5)
    check_file(path)
    with pytest.raises(GoldenError, match=r"does not read cfg_alpha;"):
        check_file(path, every_constant=True)


def test_patterns_with_a_reason_excuse_a_result_but_not_all_of_them() -> None:
    case = Case({"out_a": np.ones(2), "out_map_1": np.ones(1), "out_map_2": np.ones(1)})
    excused = Adapter(lambda case: None, {"out_map_*": "unstable"}, {})
    with pytest.raises(GoldenError, match=r"compares nothing with out_a;"):
        check_complete(case, excused)
    case.close("out_a", np.ones(2))
    check_complete(case, excused)
    with pytest.raises(GoldenError, match="nothing was compared"):
        check_complete(Case(case.arrays), Adapter(lambda case: None, {"*": "why not"}, {}))


@pytest.mark.usefixtures("registered")
def test_reasons_are_not_empty_and_names_are_not_taken_twice() -> None:
    with pytest.raises(ValueError, match="without a reason"):
        adapter("x", not_compared={"out_*": " "})
    with pytest.raises(ValueError, match="two adapters"):
        adapter("hamming")(lambda case: None)


@pytest.mark.parametrize(
    "value",
    [
        [1.0, 2.0 + 1e-5],  # beyond rtol
        [1.0, np.nan],
        [1.0, np.inf],
        [[1.0, 2.0]],  # another shape, though it would broadcast
        [1.0],
        1.0,
    ],
)
def test_a_difference_fails(value: object) -> None:
    with pytest.raises(GoldenError, match="'out_a'"):
        Case({"out_a": np.array([1.0, 2.0])}).close("out_a", value)


def test_a_difference_within_the_tolerance_of_the_recorded_type_passes() -> None:
    Case({"out_a": np.array([0.0, 2.0])}).close("out_a", [1e-7, 2.0 + 1e-7])
    case = Case({"out_a": np.array([1.0, 2.0], np.float32)})
    case.close("out_a", [1.0, 2.0 + 1e-5])
    with pytest.raises(GoldenError, match="'out_a'"):
        case.equal("out_a", [1.0, 2.0 + 1e-6])


def test_a_missing_key_and_a_constant_that_differs_are_named() -> None:
    case = Case({"cfg_layers": np.array(2)}, "f.npz")
    with pytest.raises(GoldenError, match=r"f.npz has no 'in_x'"):
        case.tensor("in_x")
    with pytest.raises(GoldenError, match=r"cfg_layers is 2, ours has 1"):
        case.agree("layers", 1)


@pytest.mark.parametrize(
    ("name", "key", "delta"),
    [
        ("dcmht_loss", "out_grad_txt", 1e-5),
        ("dsph_hyp", "out_grad_proxies", 1e-4),
        ("csq_centers", "out_centers", 2),
        ("map_ties", "out_ap_best_ties", 1e-4),
        ("bertadam_traj", "cfg_b2", 1e-3),
        ("traj_dsph", "cfg_proxy_momentum", -1e-3),
        ("traj_dsph", "cfg_lr_backbone", 1e-8),
        ("traj_dsph", "out_final_stats", 1e-5),
    ],
)
@pytest.mark.usefixtures("one_thread")
def test_a_changed_recording_fails(tmp_path: Path, name: str, key: str, delta: float) -> None:
    with pytest.raises(GoldenError):
        check_file(changed(tmp_path, name, key, delta))


def test_the_command_line_runs_the_files_of_a_folder_and_refuses_an_empty_one(
    tmp_path: Path,
) -> None:
    def run(folder: Path) -> subprocess.CompletedProcess[str]:
        words = ["pytest", "tests/golden/test_golden.py", "--golden", str(folder)]
        return subprocess.run(
            [sys.executable, "-m", *words, "-p", "no:cacheprovider"],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip

    below = tmp_path / "full" / "below"
    below.mkdir(parents=True)
    with np.load(NUMBERS / "hamming_a.npz") as archive:
        write(below, "hamming_b", **archive)
    write(below, "nobody_knows_a", out_x=np.zeros(2))
    done = run(tmp_path / "full")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "no adapter for the golden case 'nobody_knows'" in done.stdout
    assert "[below/nobody_knows_a.npz]" in done.stdout
    assert "[below/hamming_b.npz]" not in done.stdout  # passed, so not named
    empty = tmp_path / "empty"
    empty.mkdir()
    done = run(empty)
    assert done.returncode != 0
    assert "there is no .npz file below this folder" in done.stdout + done.stderr
