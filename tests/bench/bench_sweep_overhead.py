"""What a sweep costs beside its runs: 200 trivial runs, and a sweep of 1,000 that are all done.

python tests/bench/bench_sweep_overhead.py                  # both, in about a minute
python tests/bench/bench_sweep_overhead.py --runs 50 --workers 1 --done 0

Overhead is wall time minus the compute of the runs (the phases in their metrics.json) divided by
the workers, per run; the bound is 0.5 s. It holds starting the workers, composing settings, leases,
checks, logs and writing. The second table is of ``main.py sweep`` started again when 1,000 runs are
done: the listing of ``--dry-run``, and skipping all with the leaderboard and its figures; the bound
is 5 s. These runs are copies of a real one.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

import yaml  # noqa: E402

PER_RUN_S, LISTING_S = 0.5, 5.0
BITS = [8, 16, 24, 32, 64]
SETTINGS = {
    "dataset": "creatures_image",
    "dataset.rows": 480,
    "dataset.split.query": 2,
    "dataset.split.train": 10,
    "backbone": "pixels",
    "backbone.size": 8,
    "runner.threads": 1,
    "runner.device": "cpu",
}


def write_sweep(path: Path, grid: dict, output: Path) -> Path:
    """Write a sweep file over trivial runs and return its path."""
    content = {"grid": grid, "set": SETTINGS, "output": str(output)}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def sweep(file: Path, *options: str) -> float:
    """Return the seconds that ``main.py sweep`` takes in a process of its own."""
    start = time.perf_counter()
    command = [sys.executable, str(ROOT / "main.py"), "sweep", str(file), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return time.perf_counter() - start


def phases(output: Path) -> dict[str, float]:
    """Return phase → seconds, summed over all runs below ``output``."""
    total: dict[str, float] = {}
    for file in output.glob("*/metrics.json"):
        for name, seconds in json.loads(file.read_text(encoding="utf-8"))["timing"].items():
            if isinstance(seconds, float):
                total[name] = total.get(name, 0.0) + seconds
    return total


def overhead(folder: Path, runs: int, workers: int) -> None:
    """Run trivial runs and print where the time went."""
    write_sweep(folder / "warm.yaml", {"method": ["lsh"], "seed": [0]}, folder / "warm")
    sweep(folder / "warm.yaml")  # features, compiled code
    grid = {"method": ["lsh", "itq"], "seed": list(range((runs + 1) // 2))}
    output = folder / "runs"
    file = write_sweep(folder / "sweep.yaml", grid, output)
    wall = sweep(file, f"--workers={workers}")
    spent = phases(output)
    count = len(list(output.glob("*/metrics.json")))
    per_run = (wall - sum(spent.values()) / workers) / count
    print(f"{count} runs, {workers} workers, local launcher: {wall:.1f} s\n")
    print("| part | s per run |\n|---|---|")
    for name, seconds in spent.items():
        print(f"| {name} | {seconds / count:.4f} |")
    print(f"| wall time, times workers | {wall * workers / count:.4f} |")
    print(f"| **overhead** (bound {PER_RUN_S}) | **{per_run:.3f}** |\n", flush=True)


def copy_runs(file: Path, example: Path) -> int:
    """Make every run of a sweep look done, from one that is; return their number."""
    from runners.sweeps.queue import folder_of
    from runners.sweeps.sweep import expand, read_sweep

    configs = expand(read_sweep(file), file)
    metrics = json.loads((example / "metrics.json").read_text(encoding="utf-8"))
    for config in configs:
        path = folder_of(config).path
        path.mkdir(parents=True)
        for name in ("status.json", "codes.h5", "query_ap.npz", "split.npz"):
            shutil.copy(example / name, path)
        metrics["run"] |= {"method": config.method, "bits": config.bits, "seed": config.seed}
        (path / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
        text = yaml.safe_dump(dict(config.resolved), sort_keys=False)
        (path / "config.yaml").write_text(text, encoding="utf-8")
        folder_of(config).set_done()
    return len(configs)


def listing(folder: Path, runs: int) -> None:
    """Print how long a sweep takes that has nothing to do."""
    example = next((folder / "warm").glob("*/metrics.json")).parent
    seeds = list(range(-(-runs // (2 * len(BITS)))))
    grid = {"method": ["lsh", "itq"], "bits": BITS, "seed": seeds}
    file = write_sweep(folder / "done.yaml", grid, folder / "done")
    count = copy_runs(file, example)
    print(f"{count} runs, all done (bound {LISTING_S} s)\n\n| command | s |\n|---|---|")
    for name, options in (("sweep --dry-run", ["--dry-run"]), ("sweep", []), ("sweep again", [])):
        print(f"| {name} | {sweep(file, *options):.1f} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--done", type=int, default=1000, help="of the sweep that is all done")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.setdefault("HASHING_CACHE", str(folder / "cache"))
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        overhead(folder, options.runs, options.workers)
        if options.done:
            listing(folder, options.done)


if __name__ == "__main__":
    main()
