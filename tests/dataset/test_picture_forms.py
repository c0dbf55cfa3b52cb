"""What pictures hold beside 8-bit RGB: values that are known from how the files were made."""

import io
import logging

import numpy as np
import pytest
from PIL import Image, ImageOps

from dataset.base import BadImageError
from dataset.folder import FolderConfig, build
from dataset.image_cache import ImageCache
from dataset.images import FileImages, decode_with_form
from dataset.lists import ListsConfig
from dataset.mat import MatConfig
from dataset.preparation.checks import verify_dataset
from tests.dataset.sources.images import write_image
from tests.dataset.test_image_cache import geometry

RAMP = np.linspace(0, 1, 12).reshape(3, 4)
GREY = np.rint(RAMP * 255)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def seen(data: bytes, colour="as_seen"):
    return decode_with_form(lambda: data, "x", colour)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ((RAMP * 65535).astype(np.uint16), "PNG"),
        ((RAMP * 65535).astype(np.uint16), "TIFF"),
        ((RAMP * 65535).astype(np.int32), "TIFF"),
        ((RAMP * 255).astype(np.int32), "TIFF"),
        (RAMP.astype(np.float32), "TIFF"),
        ((RAMP * 255).astype(np.float32), "TIFF"),
    ],
)
def test_values_of_more_than_8_bits_are_scaled_by_type(values, kind):
    data = encoded(Image.fromarray(values), kind)
    pixels, form = seen(data)
    assert form.startswith("grey of more than 8 bits (0..")
    assert np.abs(pixels - GREY[..., None]).max() <= 1
    released, _ = seen(data, "release")
    np.testing.assert_array_equal(released, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("values", [[-1.0, 1], [0, 1e6], [np.nan, 1]])
def test_values_of_no_usual_range_are_bad(values):
    data = encoded(Image.fromarray(np.array([values], np.float32)), "TIFF")
    with pytest.raises(BadImageError, match=r"'x': its grey values are .* 0\.\.65535"):
        seen(data)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_lie_on_white(mode):
    image = Image.new("RGBA", (2, 1), (100, 100, 100, 255))
    image.putpixel((0, 0), (0, 0, 0, 0))
    data = encoded(image.convert(mode), "PNG")
    pixels, form = seen(data)
    assert pixels[0, :, 0].tolist() == [255, 100] and form.endswith("with alpha")
    assert seen(data, "release")[0][0, 0, 0] == 0
    half = encoded(Image.new("RGBA", (1, 1), (0, 0, 0, 51)), "PNG")
    assert seen(half)[0][0, 0].tolist() == [204] * 3  # a fifth of black over white


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_rotation_by_exif_is_as_pillow_turns(kind, turn):
    image = Image.fromarray(np.random.default_rng(turn).integers(0, 255, (8, 16, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = turn
    data = encoded(image, kind, exif=exif)
    pixels, form = seen(data)
    with Image.open(io.BytesIO(data)) as again:
        again.load()  # TIFF is turned here
        wanted = np.asarray(ImageOps.exif_transpose(again).convert("RGB"))
    np.testing.assert_array_equal(pixels, wanted)
    assert pixels.shape[:2] == ((8, 16) if turn < 5 else (16, 8))
    assert ("EXIF rotation" in form) == (turn > 1 and kind != "TIFF")


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_frames_the_first_is_taken(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    options = {} if kind == "TIFF" else {"duration": 10}
    more = {"save_all": True, "append_images": frames[1:]}
    data = encoded(frames[0], kind, **more, **options)
    for colour in ("as_seen", "release"):
        pixels, form = seen(data, colour)
        assert np.abs(pixels[4, 4].astype(int) - [255, 0, 0]).max() <= 2
        assert form.endswith("several frames")


def test_other_modes_and_a_broken_tag():
    for mode in ("CMYK", "L", "1", "YCbCr"):
        data = encoded(Image.new("RGB", (4, 4), "white").convert(mode), "TIFF")
        assert seen(data)[0].min() == 255 and seen(data)[1] != "RGB"
    data = encoded(Image.new("RGB", (4, 2)), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert seen(data)[0].shape == (2, 4, 3)


def test_the_setting_is_in_cache_keys_and_defaults_by_kind(tmp_path):
    write_image(tmp_path / "0.png", 0)
    release = FileImages(["0.png"], tmp_path)
    as_seen = FileImages(["0.png"], tmp_path, colour="as_seen")
    assert release.fingerprint != as_seen.fingerprint
    assert as_seen.take(np.array([0])).fingerprint == as_seen.fingerprint
    assert FolderConfig().colour == MatConfig().colour == ListsConfig().colour == "as_seen"
    assert MatConfig(protocol="flickr25k/mith").colour == "release"
    assert ListsConfig(protocol="coco/lists").colour == "release"
    assert ListsConfig(protocol="coco/lists", colour="as_seen").colour == "as_seen"


@pytest.fixture
def mixed(tmp_path, monkeypatch):
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "mine"
    for name in ("ant", "bee"):
        (root / name).mkdir(parents=True)
        for i in range(4):
            values = np.full((8, 8), 9000 * (i + 1) + 300 * (name == "ant"), np.uint16)
            Image.fromarray(values).save(root / name / f"{i}.png")
    Image.new("RGBA", (8, 8), (i, 0, 0, 0)).save(root / "ant" / "clear.png")
    return root


def test_verify_and_the_log_tell_what_there_is(mixed, caplog):
    dataset = build(FolderConfig(root=str(mixed)), "mine")
    findings = {finding.check: finding.value for finding in verify_dataset(dataset)}
    held = findings["pictures by what they hold"]
    assert held == "grey of more than 8 bits (0..65535) 8, RGB with alpha 1"
    done = findings["done to them (colour=as_seen)"]
    assert done == "scaled to 8 bits, transparent parts on white"
    with caplog.at_level(logging.INFO, "hashing"):
        for colour in ("as_seen", "release"):
            images = build(FolderConfig(root=str(mixed), colour=colour), "mine").images
            ImageCache.open(images, (geometry("squash 8 bicubic"),))
    told = [record for record in caplog.records if "hold more than RGB" in record.message]
    assert [record.levelname for record in told] == ["INFO", "WARNING"]
    assert "9 of 9 pictures" in told[0].message and "clipped at 255" in told[1].message


def test_classes_of_16_bits_differ(mixed):
    images = build(FolderConfig(root=str(mixed)), "mine").images
    values = {int(images.decode(row).mean()) for row in range(8) if "clear" not in images.name(row)}
    assert len(values) == 7
    released = build(FolderConfig(root=str(mixed), colour="release"), "mine").images
    assert {int(released.decode(row).min()) for row in (0, 1, 5)} == {255}  # white, all of them
