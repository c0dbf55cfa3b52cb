"""Pictures a second from JPEGs and from the cache of decoded pictures, and what a step waits for.

python tests/bench/bench_image_cache.py     # ../shared/data/flickr8k if there, else generated JPEGs
python tests/bench/bench_image_cache.py --size 224 --n 1000

The last line is the share of a training step of ViT-B/32 (batch 32, float32, 224 px, random
weights) for which it waits for its batch, with nothing prepared in other processes.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from dataset.image_cache import Geometry, ImageCache  # noqa: E402
from dataset.images import FileImages  # noqa: E402
from dataset.loader import SplitView, ViewInputs, make_loader  # noqa: E402


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


def measure(folder: Path, n: int, size: int, augment: str) -> tuple[float, float, float]:
    """Return seconds: build the cache; read it once as uint8 rows; once as float batches of 32."""
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
    inputs = ViewInputs(array, Preparation(size))
    view = SplitView(rows, np.ones((len(names), 1)), inputs, augment=augment)
    start = time.perf_counter()
    for _ in make_loader(view, 32, shuffle=True):
        pass
    return built, read, time.perf_counter() - start


def training_step() -> float:
    """Return seconds of a forward and backward of ViT-B/32 over 32 pictures, the better of two."""
    from torchvision.models import vit_b_32

    network, pictures = vit_b_32(), torch.randn(32, 3, 224, 224)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        network(pictures).sum().backward()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=6340)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--augment", default="resized_crop_flip")
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
        built, read, batches = measure(folder, count, options.size, options.augment)
    wait, step = 32 * batches / count, training_step()
    print(f"{count} JPEGs of {folder} at {options.size} px, {torch.get_num_threads()} threads")
    print(f"decoded, resized and stored, once: {count / built:8.0f} pictures/s")
    print(f"from the cache                   : {count / read:8.0f} pictures/s, {built / read:.0f}×")
    print(f"batches, {options.augment:23} : {count / batches:8.0f} pictures/s")
    print(f"first epoch / second epoch       : {(built + batches) / batches:8.1f}")
    print(f"a step waits {wait:.3f} s for its batch and computes {step:.2f} s: "
          f"{100 * wait / (wait + step):.1f} % waiting")  # fmt: skip


if __name__ == "__main__":
    main()
