"""What lists of operations on pictures cost, and what a training step waits for.

python tests/bench/bench_image_operations.py                    # 2 workers, batches of 32
python tests/bench/bench_image_operations.py --workers 0        # the training process loads
python tests/bench/bench_image_operations.py --step-ms 100      # beside an accelerator's step

Generated JPEGs of 500×375 px, the size of common collections, to 224 px. For each list: the
processor's time for a picture, the workers that keep up with the step, and the share of a training
step of ViT-B/32 (float32, random weights) for which it waits for its batch. ``--step-ms`` takes a
sleep of that length in place of the step, as an accelerator leaves the processor free. "kept
originals" is what is not done: decoded originals on disk, many times the size of the JPEGs.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from dataset.image_cache import ImageCache, OriginalImages  # noqa: E402
from dataset.images import FileImages  # noqa: E402
from dataset.loader import SplitView, ViewInputs, make_loader, set_epoch  # noqa: E402
from dataset.operation_lists import Geometry, ImageOperations  # noqa: E402
from tests.bench.bench_image_cache import generate  # noqa: E402

CROP = "random_resized_crop 224 scale 0.08-1 ratio 3/4-4/3 bilinear"
LISTS = {
    "cached squares": ["squash 224 bicubic", "flip 0.5"],
    "cached shapes": ["resize_short 256 bilinear", "flip 0.5", "random_crop 224"],
    "crops of a cached square": ["squash 224 bicubic", CROP, "flip 0.5"],
    "crops of originals": [f"{CROP} of original", "flip 0.5"],
    "kept originals": [f"{CROP} of original", "flip 0.5"],
}
INPUT = SimpleNamespace(size=224, mean=(0.0,) * 3, std=(1.0,) * 3)


def view_of(source: FileImages, name: str) -> SplitView:
    """Return the view of all rows, what can be cached being cached."""
    geometry, at_access = ImageOperations.parse(LISTS[name], "").split()
    images = OriginalImages(source)
    if geometry.operations or name == "kept originals":
        geometry = geometry if geometry.operations else Geometry((), None)
        images = ImageCache.open(source, (geometry,)).images(geometry)
    rows = np.arange(len(source))
    return SplitView(rows, np.ones((len(rows), 1)), ViewInputs(images, INPUT, at_access))


def cost(view: SplitView, batch: int) -> float:
    """Return the processor's ms for a picture, the better of two epochs."""
    times = []
    for _ in range(2):
        start = time.process_time()
        for first in range(0, len(view), batch):
            view.__getitems__(range(first, min(first + batch, len(view))))
        times.append(time.process_time() - start)
    return 1000 * min(times) / len(view)


def vit_step() -> Callable[[torch.Tensor], None]:
    """Return a forward and backward of ViT-B/32."""
    from torchvision.models import vit_b_32

    network = vit_b_32()

    def step(pictures: torch.Tensor) -> None:
        network(pictures).sum().backward()

    return step


def waiting(
    view: SplitView, batch: int, workers: int, step: Callable[[torch.Tensor], None]
) -> tuple[float, float]:
    """Return mean seconds of a step that are waited and that are computed, after three steps."""
    loader = make_loader(view, batch, shuffle=True, workers=workers, drop_last=True)
    set_epoch(loader, 0)
    waited, computed = [], []
    start = time.perf_counter()
    for one in loader:
        ready = time.perf_counter()
        step(one.image)
        done = time.perf_counter()
        waited.append(ready - start)
        computed.append(done - ready)
        start = time.perf_counter()
    return float(np.mean(waited[3:])), float(np.mean(computed[3:]))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=512)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--list", nargs="*", choices=LISTS, default=list(LISTS))
    parser.add_argument("--step-ms", type=float, help="sleep so long instead of computing")
    options = parser.parse_args()
    step = vit_step()
    if options.step_ms is not None:
        step = lambda pictures: time.sleep(options.step_ms / 1000)  # noqa: E731
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["HASHING_CACHE"] = str(Path(temporary) / "cache")
        folder = Path(temporary) / "pictures"
        folder.mkdir()
        generate(folder, options.n)
        source = FileImages(sorted(path.name for path in folder.iterdir()), folder)
        print(f"{options.n} JPEGs, batches of {options.batch}, {options.workers} workers")
        for name in options.list:
            view = view_of(source, name)
            each = cost(view, options.batch)
            wait, compute = waiting(view, options.batch, options.workers, step)
            print(
                f"{name:25} {each:5.2f} ms a picture, {options.batch * each / compute / 1000:5.2f} "
                f"busy workers; a step waits {1000 * wait:4.0f} ms and computes "
                f"{1000 * compute:5.0f} ms: {100 * wait / (wait + compute):.1f} % waiting"
            )


if __name__ == "__main__":
    main()
