"""Pictures a second from JPEGs and from the cache of decoded pictures.

python tests/bench/bench_image_cache.py     # ../shared/data/flickr8k if there, else generated JPEGs
python tests/bench/bench_image_cache.py --size 224 --n 1000

What a training step waits for, by what is done to pictures: bench_image_operations.py.
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

from dataset.image_cache import ImageCache  # noqa: E402
from dataset.images import FileImages  # noqa: E402
from dataset.operation_lists import ImageOperations  # noqa: E402


def generate(folder: Path, n: int) -> None:
    """Write ``n`` JPEGs of 500×375 px, the size of common collections."""
    rng = np.random.default_rng(0)
    for i in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{i:05}.jpg", quality=90)


def measure(folder: Path, n: int, size: int) -> tuple[float, float]:
    """Return seconds: build the cache; read it once as uint8 rows."""
    names = sorted(path.name for path in folder.glob("*.jpg"))[:n]
    geometry, _ = ImageOperations.parse([f"squash {size} bicubic"], "").split()
    start = time.perf_counter()
    ImageCache.open(FileImages(names, folder), (geometry,))
    built = time.perf_counter() - start

    start = time.perf_counter()
    array = ImageCache.open(FileImages(names, folder), (geometry,)).images(geometry)
    order = np.random.default_rng(0).permutation(len(names))
    for i in range(0, len(names), 100):
        array[order[i : i + 100]]
    return built, time.perf_counter() - start


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
        count = min(options.n, len(list(folder.glob("*.jpg"))))
        built, read = measure(folder, count, options.size)
    print(f"{count} JPEGs of {folder} at {options.size} px")
    print(f"decoded, resized and stored, once: {count / built:8.0f} pictures/s")
    print(f"from the cache                   : {count / read:8.0f} pictures/s, {built / read:.0f}×")


if __name__ == "__main__":
    main()
