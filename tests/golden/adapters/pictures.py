"""What is done to pictures before they are normalised: operations in words, chance given."""

from __future__ import annotations

import hashlib
import io
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from dataset.image_operations import ColorJitter, Flip, Operation
from dataset.images import decode_image
from dataset.loader import SplitView, ViewInputs
from dataset.operation_lists import ImageOperations
from tests.golden.harness import Case, adapter

NOT_READ = {
    "cfg_torch": "a note on the recording",
    "cfg_torchvision": "a note on the recording",
    "cfg_pillow": "a note on the recording",
    "cfg_box": "a note in words",
    "cfg_repositories": "a note in words",
}


def decoded(case: Case) -> list[np.ndarray]:
    """Return the recorded pictures, written into files and read as the project reads files."""
    modes = case.cfg("modes")
    files = [_file(case, case.array(f"in_picture_{i}"), mode) for i, mode in enumerate(modes)]
    if "in_exif_png" in case:
        files.append(case.array("in_exif_png").tobytes())
    return [decode_image(lambda file=file: file, f"picture {i}") for i, file in enumerate(files)]


def _file(case: Case, pixels: np.ndarray, mode: str) -> bytes:
    image = Image.frombytes(mode, pixels.shape[1::-1], pixels.tobytes())
    if mode == "P":
        image.putpalette(case.array("in_palette").tobytes())
    stream = io.BytesIO()
    image.save(stream, "TIFF" if mode == "CMYK" else "PNG")
    return stream.getvalue()


def operations(case: Case, name: str, size: int, resize: int | None) -> ImageOperations:
    """Return the list ``cfg_<name>_ops`` with S and R put in."""
    numbers = {"S": size, "R": resize}
    words = [
        " ".join(str(numbers.get(word, word)) for word in text.split())
        for text in case.cfg(f"{name}_ops")
    ]
    return ImageOperations.parse(words, name)


def carried_out(given: ImageOperations, pixels: np.ndarray, **drawn: Any) -> np.ndarray:
    """Return the picture after all operations, with ``flip``, ``box`` and ``jitter`` as given."""
    geometry, rest = given.split()
    made = geometry.apply(pixels)
    for operation in rest:
        made = operation.apply(made, _drawn(operation, drawn))
    return made


def _drawn(operation: Operation, drawn: dict[str, Any]) -> Any:
    if isinstance(operation, Flip):
        return bool(drawn["flip"])
    if isinstance(operation, ColorJitter):
        return drawn["jitter"]
    return tuple(int(side) for side in drawn["box"]) if operation.is_random else None


def compare_full(case: Case, kind: str, pixels: np.ndarray) -> None:
    """Compare the one picture at full size: sums of rows and columns, the middle, the hash."""
    key = f"out_full_{kind}"
    if f"{key}_sha256" not in case:
        return
    size = len(case.array(f"{key}_rowsum"))
    resize = case.cfg("full_resize") if "cfg_full_resize" in case else None
    given = operations(case, kind, size, resize)
    drawn = {
        name: case.array(f"in_full_{kind}_{name}")
        for name in ("flip", "box")
        if f"in_full_{kind}_{name}" in case
    }
    made = carried_out(given, pixels, **drawn)
    case.equal(f"{key}_rowsum", made.sum(axis=1, dtype=np.int64))
    case.equal(f"{key}_colsum", made.sum(axis=0, dtype=np.int64))
    half = len(case.array(f"{key}_patch")) // 2
    middle = slice(size // 2 - half, size // 2 + half)
    case.equal(f"{key}_patch", made[middle, middle])
    sha = hashlib.sha256(np.ascontiguousarray(made).tobytes()).digest()
    case.equal(f"{key}_sha256", np.frombuffer(sha, np.uint8))


def normalised(case: Case, pictures: np.ndarray) -> Any:
    """Return [n,3,S,S] as views normalise them."""
    image_input = SimpleNamespace(
        size=pictures.shape[1], mean=case.cfg("mean"), std=case.cfg("std")
    )
    rows = np.arange(len(pictures))
    view = SplitView(rows, np.ones((len(rows), 1)), ViewInputs(pictures, image_input))
    return view.__getitems__(rows).image


def compare_kind(case: Case, kind: str, pictures: list[np.ndarray]) -> None:
    """Compare ``out_<kind>_uint8``: all pictures, or drawn ones with the flips and boxes given."""
    resize = case.cfg("resize") if "cfg_resize" in case else None
    given = operations(case, kind, case.cfg("resolution"), resize)
    if f"in_{kind}_picture" in case:
        drawn = zip(
            *(case.array(f"in_{kind}_{name}") for name in ("picture", "flip", "box")), strict=True
        )
        made = [carried_out(given, pictures[i], flip=flip, box=box) for i, flip, box in drawn]
    else:
        made = [carried_out(given, picture) for picture in pictures]
    case.equal(f"out_{kind}_uint8", np.stack(made))
    if f"out_{kind}_first_three" in case:
        case.close(f"out_{kind}_first_three", normalised(case, np.stack(made)[:3]))


@adapter(
    "pipeline_dcmht", "pipeline_toolkit", "pipeline_deephash_lists", "pipeline_pixel",
    "pipeline_pzsh", "pipeline_fire", not_read=NOT_READ,
)  # fmt: skip
def pipeline(case: Case) -> None:
    """Everything: decoding of each mode, every list of operations, normalisation."""
    pictures = decoded(case)
    for key in case.keys("cfg_*_ops"):
        kind = key.removeprefix("cfg_").removesuffix("_ops")
        if kind.startswith("cifar"):
            compare_cifar(case, kind)
        else:
            compare_kind(case, kind, pictures)
            compare_full(case, kind, case.array("in_big"))


def compare_cifar(case: Case, kind: str) -> None:
    """Compare pictures of 32 px that are flipped and changed in colour as given."""
    given = operations(case, kind, case.cfg("cifar_resolution"), None)
    pixels = case.array("in_cifar_pixels")
    names = ("flip", "brightness", "contrast", "brightness_first")
    flips, *jitters = (case.array(f"in_cifar_{name}") for name in names)
    made = [
        carried_out(given, one, flip=flip, jitter=jitter)
        for one, flip, jitter in zip(pixels, flips, zip(*jitters, strict=True), strict=True)
    ]
    case.equal(f"out_{kind}_uint8", np.stack(made))


@adapter(
    "pipeline_deephash_cifar",
    not_read=NOT_READ,
    not_compared={"out_*_label": "class numbers are not among the inputs, only their one-hot rows"},
)
def deephash_cifar(case: Case) -> None:
    """Pictures and normalised tensors; the first picture at full size."""
    pixels = case.array("in_pixels")
    for kind in ("train", "eval"):
        given = operations(case, kind, case.cfg("resolution"), None)
        made = np.stack([carried_out(given, one) for one in pixels])
        case.equal(f"out_{kind}_uint8", made)
        case.close(f"out_{kind}_first_two", normalised(case, made[:2]))
        compare_full(case, kind, pixels[0])
