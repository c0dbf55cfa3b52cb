"""Decoding in one place: any kind of picture, broken files, some rows of a source."""

import errno
import io

import numpy as np
import pytest
from PIL import Image

from dataset.base import BadImageError
from dataset.images import FileImages, SelectedImages, decode_image, look_again
from tests.dataset.sources.images import write_image


def test_taking_rows(tmp_path):
    for i in range(5):
        write_image(tmp_path / f"{i}.jpg", i)
    source = FileImages([f"{i}.jpg" for i in range(5)], tmp_path)
    for chosen in (source.take(np.array([4, 2])), SelectedImages(source, np.array([4, 2]))):
        assert len(chosen) == 2 and chosen.name(1) == source.name(2)
        np.testing.assert_array_equal(chosen.decode(0), source.decode(4))
        assert chosen.fingerprint != source.fingerprint
        before = chosen.fingerprint
        write_image(tmp_path / "0.jpg", 8)  # a file of none of its rows
        look_again(chosen)
        assert chosen.fingerprint == before
        write_image(tmp_path / "4.jpg", 9)
        look_again(chosen)
        assert chosen.fingerprint != before
        write_image(tmp_path / "4.jpg", 4)


def test_decoders_errors(monkeypatch):
    def png(image: Image.Image) -> bytes:
        stream = io.BytesIO()
        image.save(stream, "PNG")
        return stream.getvalue()

    data = png(Image.new("RGB", (400, 400)))
    with pytest.raises(BadImageError, match="'a.png'"):
        decode_image(lambda: data[:60] + b"xx" + data[62:], "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(BadImageError, match="'a.png': too many pixels"):
        decode_image(lambda: data, "a.png")

    def starved() -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    with pytest.raises(OSError, match="Too many open files"):  # not the picture's fault
        decode_image(starved, "a.png")


@pytest.mark.parametrize("mode", ["RGBA", "P", "L", "1", "I;16", "CMYK"])
def test_every_kind_of_picture_becomes_rgb(mode, tmp_path):
    image = Image.new("RGB", (6, 5), (200, 100, 50))
    image = Image.new("I;16", (6, 5), 300) if mode == "I;16" else image.convert(mode)
    image.save(tmp_path / "x.tif")
    decoded = FileImages(["x.tif"], tmp_path).decode(0)
    assert decoded.shape == (5, 6, 3) and decoded.dtype == np.uint8
