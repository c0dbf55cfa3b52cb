"""What training by two gloo processes differs in from training by one, as tables.

python tests/bench/two_processes_table.py               # every loss, a minute
python tests/bench/two_processes_table.py --runs        # and whole short runs, some minutes

First table: two steps of every loss in float64 on toy features, with the heads in evaluation mode
(as ``tests/runners/training/test_two_processes.py`` has them, which bounds the differences) and in
training mode, where dropout and batch statistics are those of each process. A difference is the
largest of a tensor over its largest value. Second table: ``torchrun --nproc_per_node 2 main.py
train`` against one process in float32, on 401 scenes; its 51 query and 15 validation rows cannot be
halved.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

import torch  # noqa: E402
import torch.multiprocessing  # noqa: E402

from common.code_files.run_codes import read_codes  # noqa: E402
from common.config.layers import config_names  # noqa: E402
from common.config.run_config import compose  # noqa: E402
from common.storage.run_folder import RunFolder  # noqa: E402
from tests.runners.training.test_two_processes import first_pairs, steps, work  # noqa: E402

LOSS, GRADIENT, BUFFER = "losses", "gradients", "buffers"
RUNS = (
    ("dcmht", "pairwise", ()),
    ("mith", "memory of all rows", ()),
    ("dsph", "proxies, without dropout", ("model.dropout=0",)),
    ("dsph", "proxies, dropout 0.2", ()),
)
WORDS = (
    "dataset=creatures_scenes", "dataset.rows=401", "dataset.split.query=51",
    "dataset.split.train=151", "data.captions=first", "bits=16", "runner.epochs=3",
    "runner.batch_size=32", "runner.device=cpu", "runner.threads=1", "runner.tensorboard=false",
)  # fmt: skip


def methods_of(loss: str) -> str:
    """Return the methods whose YAML names a loss."""
    found = []
    for name in config_names("method"):
        config = compose([f"method={name}", "dataset=creatures_scenes"])
        if config.loss is not None and config.loss.name == loss:
            found.append(name)
    return ", ".join(found) or "–"


def differences(loss: str, model: str, folder: Path, training: bool) -> dict[str, float]:
    """Return the largest relative difference of each kind of value, over both processes."""
    alone = steps(loss, model, lambda module: module, training)
    largest = {LOSS: 0.0, GRADIENT: 0.0, BUFFER: 0.0}
    parameters = {key for key in alone if key.startswith(("model.", "loss."))}
    for rank in range(2):
        together = torch.load(folder / f"{loss}{rank}.pt")
        for key, value in alone.items():
            group = LOSS if key[0].isdigit() else GRADIENT if key in parameters else BUFFER
            value, other = value.double(), together[key].double()
            if not value.numel():
                continue
            scale = max(value.abs().max().item(), 1e-12)
            largest[group] = max(largest[group], (value - other).abs().max().item() / scale)
    return largest


def losses_table() -> None:
    """Print the table over losses."""
    pairs = first_pairs()
    found: dict[bool, dict[str, dict[str, float]]] = {}
    for training in (False, True):
        with tempfile.TemporaryDirectory() as name:
            arguments = (2, Path(name), pairs, training)
            torch.multiprocessing.spawn(work, args=arguments, nprocs=2)
            found[training] = {
                loss: differences(loss, model, Path(name), training) for loss, model in pairs
            }
    print("| loss | model | methods | losses | gradients | buffers | training mode: losses |")
    print("|---|---|---|---|---|---|---|")
    for loss, model in pairs:
        own = found[False][loss]
        cells = [f"{own[part]:.0e}" if own[part] else "0" for part in (LOSS, GRADIENT, BUFFER)]
        trained = found[True][loss][LOSS]
        told = f"{trained:.0e}" if trained else "0"
        print(f"| {loss} | {model} | {methods_of(loss)} | {' | '.join(cells)} | {told} |")


def train(output: Path, words: list[str], processes: int) -> RunFolder:
    """Do a run with one process or several, and return its folder."""
    launch = ["main.py", "train", *words, f"output={output}"]
    if processes > 1:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        options = [f"--nproc_per_node={processes}", f"--master_port={port}"]
        launch = ["-m", "torch.distributed.run", *options, *launch]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launch], cwd=ROOT, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return RunFolder(output / compose(words).run_name)


def told(folder: RunFolder) -> tuple[str, str]:
    """Return the loss of the last epoch and mAP by direction."""
    log = (folder.path / "log.txt").read_text(encoding="utf-8")
    reports = folder.metrics()["directions"].items()
    maps = [f"{name} {report['map']['all']['expected']:.4f}" for name, report in reports]
    return re.findall(r"epoch 3/3 +loss ([0-9.]+)", log)[-1], " ".join(maps)


def differing_bits(one: RunFolder, two: RunFolder) -> str:
    """Return how many bits of all codes differ, of how many, and the rows of each code set."""
    pairs = [
        (ours.codes[modality], theirs.codes[modality])
        for ours, theirs in zip(
            read_codes(one.codes_file)[:2], read_codes(two.codes_file)[:2], strict=True
        )
        for modality in ours.codes
    ]
    different = sum(int((a != b).sum()) for a, b in pairs)
    rows = sorted({len(a) for a, _ in pairs})
    return f"{different} of {sum(a.size for a, _ in pairs):,} ({rows[0]} and {rows[-1]} rows)"


def runs_table() -> None:
    """Print the table over whole runs."""
    print("\n| method | | final loss: 1, 2 processes | mAP: 1; 2 processes | bits that differ |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for method, about, extra in RUNS:
            words = [f"method={method}", *WORDS, *extra]
            one, two = (train(Path(name) / str(n), words, n) for n in (1, 2))
            losses, maps = zip(told(one), told(two), strict=True)
            cells = (method, about, ", ".join(losses), "; ".join(maps), differing_bits(one, two))
            print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", action="store_true", help="whole short runs as well")
    options = parser.parse_args()
    losses_table()
    if options.runs:
        runs_table()


if __name__ == "__main__":
    main()
