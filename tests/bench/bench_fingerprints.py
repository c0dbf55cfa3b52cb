"""What knowing files by content costs: reading them once, a stat later, and its share of a sweep.

python tests/bench/bench_fingerprints.py     # JPEGs as large as those of COCO, drawn
python tests/bench/bench_fingerprints.py --n 2000 --runs 20

"cold" reads from the disk (pages are dropped before, where the system lets them), "warm" from
memory. "ends" is what is not done: size, first and last 64 KiB of each file, which misses a change
between them. The sweep is of frozen runs on all these pictures, in one process, features cached.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from common.config.run_config import compose  # noqa: E402
from common.storage import contents  # noqa: E402
from dataset.image_cache import ImageCache  # noqa: E402
from dataset.images import FileImages  # noqa: E402
from dataset.operation_lists import ImageOperations  # noqa: E402
from runners import experiment  # noqa: E402
from runners.base import run_config  # noqa: E402
from runners.inputs import loading  # noqa: E402

COCO_FILES, COCO_BYTES, END = 122_218, 18e9, 1 << 16


def draw(folder: Path, n: int) -> None:
    """Write ``n`` JPEGs of 640×480 px and about 150 kB."""
    rng = np.random.default_rng(0)
    for i in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (90, 120, 3), dtype=np.uint8))
        coarse.resize((640, 480), Image.Resampling.BICUBIC).save(folder / f"{i:05}.jpg", quality=92)


def drop(files: list[Path]) -> None:
    """Ask the system to forget the pages of files."""
    for file in files:
        with open(file, "rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def ends(file: Path) -> str:
    """Return a hash of size, first and last bytes."""
    with open(file, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        total = hashlib.sha256(str(size).encode() + stream.read(END))
        stream.seek(max(size - END, 0))
        total.update(stream.read(END))
    return total.hexdigest()


def all_ends(files: list[Path]) -> list[str]:
    """Return those of all files, in threads."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(ends, files))


def seconds(work: Callable[[], Any]) -> float:
    """Return how long ``work`` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def forget() -> None:
    """Begin as a new process does."""
    contents._store.cache_clear()


def files_once(folder: Path, files: list[Path], store: Path) -> None:
    """Print what it takes to know the files, once and later."""
    size = sum(file.stat().st_size for file in files)
    geometry, _ = ImageOperations.parse(["squash 224 bicubic"], "").split()
    rows: dict[str, float] = {}
    drop(files)
    rows["read and hashed once, cold"] = seconds(lambda: contents.content_digests(files))
    store.unlink(missing_ok=True)
    forget()
    rows["read and hashed once, warm"] = seconds(lambda: contents.content_digests(files))
    forget()
    rows["later: a stat each"] = seconds(lambda: contents.content_digests(files))
    for name in ("cold", "warm"):
        if name == "cold":
            drop(files)
        rows[f"ends, {name}"] = seconds(lambda: all_ends(files))
    source = FileImages([file.name for file in files], folder)
    decoding = seconds(lambda: ImageCache.open(source, (geometry,)))
    rows["decoded once to 224 px, for comparison"] = decoding
    print(f"{len(files)} JPEGs, {size / 1e6:.0f} MB\n\n| | s | per file | of decoding |")
    print("|---|---|---|---|")
    for name, taken in rows.items():
        per_file = f"{1e6 * taken / len(files):.1f} µs"
        print(f"| {name} | {taken:.2f} | {per_file} | {100 * taken / decoding:.1f} % |")
    later = rows["later: a stat each"] * COCO_FILES / len(files)
    cold = rows["read and hashed once, cold"] * COCO_BYTES / size
    print(
        f"\nCOCO ({COCO_FILES:,} files, 18 GB) at this rate: once {cold:.0f} s, later {later:.1f} s"
    )


def share_of_a_sweep(folder: Path, output: Path, runs: int) -> None:
    """Print what share of the time of frozen runs goes into knowing their inputs."""
    spent = 0.0

    def timed(work: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any) -> Any:
            nonlocal spent
            start = time.perf_counter()
            result = work(*arguments)
            spent += time.perf_counter() - start
            return result

        return wrapped

    experiment.identity_of = timed(experiment.identity_of)
    loading.look_again = timed(loading.look_again)
    words = [
        "dataset=folder", f"dataset.root={folder.parent}", "method=csq", "backbone=clip_mini",
        "backbone.freeze=all", "runner.epochs=5", "runner.device=cpu", "runner.tensorboard=false",
        f"output={output}",
    ]  # fmt: skip
    first = seconds(lambda: run_config(compose([*words, "seed=0"])))
    print(f"\nfirst run (decodes, encodes): {first:.1f} s, of it {spent:.2f} s identity")
    spent = 0.0
    rest = seconds(lambda: [run_config(compose([*words, f"seed={s}"])) for s in range(1, runs)])
    each, share = 1000 * spent / (runs - 1), 100 * spent / rest
    print(f"{runs - 1} further frozen runs of 5 epochs: {rest / (runs - 1):.2f} s each, of it "
          f"{each:.1f} ms identity: {share:.2f} %")  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=11)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        os.environ["HASHING_CACHE"] = str(home / "cache")
        folder = home / "data" / "all"
        folder.mkdir(parents=True)
        draw(folder, options.n)
        contents.SETTLED_NS = -1  # these were written a moment ago
        files = sorted(folder.glob("*.jpg"))
        half = home / "data" / "other"  # a second class, for the runs
        half.mkdir()
        files_once(folder, files, home / "cache" / "contents" / "files.bin")
        for file in files[::2]:
            file.rename(half / file.name)
        share_of_a_sweep(folder, home / "runs", options.runs)


if __name__ == "__main__":
    main()
