"""What a picture file holds beside 8-bit RGB, and how it becomes that.

``as_seen``, for one's own pictures: as a viewer shows them. More than 8 bits are scaled by the type
of the values, transparent parts lie on white, the rotation noted by a camera is carried out.
``release``, as the papers' released loaders do: ``PIL.Image.convert("RGB")``, which clips values at
255, drops alpha, and leaves rotations alone. Of several frames both take the first.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable
from typing import Literal

import numpy as np
from PIL import Image

from dataset.base import BadImageError

Colour = Literal["as_seen", "release"]
PLAIN = "RGB"
CLIPPED = "grey of more than 8 bits"
"""How the form of a picture begins that ``release`` clips."""
_TREATMENTS = {  # part of a form → what is done as_seen, and by a release
    CLIPPED: ("scaled to 8 bits", "clipped at 255"),
    " with alpha": ("transparent parts on white", "alpha dropped"),
    ", EXIF rotation": ("rotated", "not rotated"),
    ", several frames": ("first frame taken", "first frame taken"),
}
_ORIENTATION = 0x0112  # tags of EXIF and TIFF
_BITS, _SAMPLE_FORMAT = 258, 339
_SIGNED = 2
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_NAMES = {"L": "grey", "1": "black and white", "P": "palette", "LA": "grey", "PA": "palette"}
_FLOAT_RANGES = (1, 2**8 - 1, 2**16 - 1)
_INTEGER_RANGES = (2**8 - 1, 2**16 - 1, 2**32 - 1)


def to_rgb(image: Image.Image, colour: Colour) -> tuple[np.ndarray, str]:
    """Return an opened picture as RGB uint8 [H,W,3], and in words what its file holds.

    Raises:
        BadImageError: ``as_seen`` of values that are in no usual range; says which.
    """
    if colour == "release":
        form = _form(image)
        pixels = np.asarray(image.convert("RGB"))
        return pixels, form + _extras(image, _turn(image))
    image.load()  # some formats know their mode, and have turned it, only then
    form, turn = _form(image), _turn(image)
    if form == CLIPPED:
        shown, white = _eight_bits(image)
        form = f"{form} (0..{white})"
    elif image.has_transparency_data:
        shown = Image.new("RGBA", image.size, "white")
        shown.alpha_composite(image.convert("RGBA"))
    else:
        shown = image
    rgb = shown.convert("RGB")
    pixels = np.asarray(rgb.transpose(_TURNS[turn]) if turn in _TURNS else rgb)
    return pixels, form + _extras(image, turn)


def treatment(form: str, colour: Colour) -> list[str]:
    """Return what more than a change of mode was done to a picture of this form.

    >>> treatment("palette with alpha, several frames", "as_seen")
    ['transparent parts on white', 'first frame taken']
    """
    return [done[colour == "release"] for part, done in _TREATMENTS.items() if part in form]


def counted(forms: Iterable[str]) -> str:
    """Return how many pictures there are of each form, most frequent first.

    >>> counted(["RGB", "grey", "RGB"])
    'RGB 2, grey 1'
    """
    return ", ".join(f"{form} {n:,}" for form, n in Counter(forms).most_common())


def _form(image: Image.Image) -> str:
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return CLIPPED
    name = _NAMES.get(image.mode, image.mode.upper().removesuffix("A"))
    return f"{name} with alpha" if image.has_transparency_data else name


def _extras(image: Image.Image, turn: int) -> str:
    """Return words on rotation and frames; looked for last, for it moves in the file."""
    frames = False
    with contextlib.suppress(Exception):  # a broken second frame is no fault of the first
        frames = bool(getattr(image, "is_animated", False))
    return (", EXIF rotation" if turn in _TURNS else "") + (", several frames" if frames else "")


def _turn(image: Image.Image) -> int:
    with contextlib.suppress(Exception):  # broken tags are many, and no picture's fault
        return int(image.getexif().get(_ORIENTATION, 1))
    return 1


def _eight_bits(image: Image.Image) -> tuple[Image.Image, int]:
    """Return grey values of more than 8 bits as ``L``, and the value that became white.

    Where the type does not say it (32 bits, floats), it is the least usual one that no value is
    above.
    """
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    bits, sign = tags.get(_BITS, (16,))[0], tags.get(_SAMPLE_FORMAT, (1,))[0]
    if image.mode == "I" and bits == 32 and sign != _SIGNED:
        values = values.view(np.uint32)
    least, most = values.min(), values.max()
    ranges: tuple[int, ...] = _FLOAT_RANGES
    if image.mode != "F":
        ranges = _INTEGER_RANGES if bits == 32 else (2 ** (bits - (sign == _SIGNED)) - 1,)
    white = next((white for white in ranges if most <= white), None)
    if not least >= 0 or white is None:  # NaN is neither
        allowed = " or ".join(f"0..{white}" for white in ranges)
        raise BadImageError(
            f"its grey values are from {least:g} to {most:g}; {allowed} is understood, or 8 bits."
        )
    scaled = np.rint(values.astype(np.float64) * (255 / white)).astype(np.uint8)
    return Image.fromarray(scaled), white
