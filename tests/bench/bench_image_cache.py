"""How much faster the second epoch is: decoding JPEGs against reading the decoded-image cache.

python tests/bench/bench_image_cache.py     # ../shared/data/flickr8k if there, else generated JPEGs
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from dataset.images import FileImages, Geometry, ImageCache  # noqa: E402
from dataset.loader import SplitView, make_loader  # noqa: E402


class Preparation:
    """Values left in 0..1."""

    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def __init__(self, size: int) -> None:
        self.size = size


def generate(folder: Path, n: int) -> None:
    """Write ``n`` JPEGs of 500×375 px, the size of common collections."""
    rng = np.random.default_rng(0)
    for i in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{i:05}.jpg", quality=90)


def measure(folder: Path, n: int, size: int) -> tuple[float, float, float]:
    """Return seconds: build the cache; read it once as uint8 rows; once as float batches."""
    names = sorted(path.name for path in folder.glob("*.jpg"))[:n]
    source, geometry = FileImages(names, folder), Geometry("squash", size)
    start = time.perf_counter()
    ImageCache.open(source, (geometry,))
    built = time.perf_counter() - start

    start = time.perf_counter()
    array = ImageCache.open(FileImages(names, folder), (geometry,)).array(geometry)
    order = np.random.default_rng(0).permutation(len(names))
    for i in range(0, len(names), 100):
        array[order[i : i + 100]]
    read = time.perf_counter() - start

    rows = np.arange(len(names))
    view = SplitView(
        rows, np.ones((len(names), 1)), images=array, image_input=Preparation(size)
    )  # fmt: skip
    start = time.perf_counter()
    for _ in make_loader(view, 100, shuffle=True):
        pass
    return built, read, time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=6340)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--generated", action="store_true", help="do not use flickr8k")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["HASHING_CACHE"] = str(Path(temporary) / "cache")
        folder = ROOT.parent / "shared/data/flickr8k/images"
        if options.generated or not folder.is_dir():
            folder = Path(temporary) / "pictures"
            folder.mkdir()
            generate(folder, options.n)
        built, read, batches = measure(folder, options.n, options.size)
    print(f"{options.n} JPEGs of {folder} at {options.size} px")
    print(f"decode, resize and store, once  : {built:8.3f} s")
    print(f"the same pictures from the cache: {read:8.3f} s   ratio {built / read:.1f}")
    print(f"as normalised float batches     : {batches:8.3f} s")
    print(f"first epoch / second epoch      : ratio {(built + batches) / batches:.1f}")


if __name__ == "__main__":
    main()
