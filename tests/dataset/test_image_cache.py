"""Pictures equal to Pillow's and torchvision's, and none decoded twice."""

import errno
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import CenterCrop, InterpolationMode, Resize

from dataset import image_cache, images
from dataset.base import ArrayImages, BadImageError, ImageSource
from dataset.image_cache import ImageCache, OriginalImages, RaggedImages
from dataset.images import FileImages
from dataset.operation_lists import Geometry, ImageOperations
from dataset.stacked import stack_images
from utils.errors import UserError


def geometry(*words: str) -> Geometry:
    return ImageOperations.parse(words, "data.train_image").split()[0]


SQUASH = geometry("squash 24 bicubic")
CROP = geometry("resize_short 24 bicubic", "center_crop 24")
SHORT = geometry("resize_short 24 bilinear", "flip 0.5", "random_crop 20")
N = 37


class Counting:
    """Another source, counting how often each picture is decoded."""

    def __init__(self, source):
        self.source, self.fingerprint, self.rows = source, source.fingerprint, []

    def __len__(self):
        return len(self.source)

    def decode(self, row):
        self.rows.append(row)
        return self.source.decode(row)

    def name(self, row):
        return self.source.name(row)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(N):
        coarse = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((30 + i, 70 - i), Image.Resampling.BICUBIC)
        image.convert("L" if i == 3 else "RGB").save(folder / f"{i}.jpg")
    return folder


def files(folder: Path) -> FileImages:
    return FileImages([f"{i}.jpg" for i in range(N)], folder)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_squash_equals_pillow_and_crop_equals_torchvision(folder):
    source = files(folder)
    assert isinstance(source, ImageSource)
    cache = ImageCache.open(source, (SQUASH, CROP))
    crop = [Resize(24, interpolation=InterpolationMode.BICUBIC), CenterCrop(24)]
    for row in range(N):
        image = Image.open(folder / f"{row}.jpg").convert("RGB")
        np.testing.assert_array_equal(source.decode(row), np.asarray(image))
        squashed = image.resize((24, 24), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(cache.images(SQUASH)[row], np.asarray(squashed))
        np.testing.assert_array_equal(cache.images(CROP)[row], np.asarray(crop[1](crop[0](image))))
    assert isinstance(cache.images(CROP), np.memmap) and cache.images(CROP).dtype == np.uint8
    assert cache.bad_rows.tolist() == []


@pytest.mark.parametrize("shape", [(500, 333), (333, 500), (24, 25), (24, 24), (1, 90), (640, 480)])
@pytest.mark.parametrize("size", [24, 224])
def test_crop_of_any_shape(shape, size):
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    image = Resize(size, interpolation=InterpolationMode.BICUBIC)(Image.fromarray(pixels))
    expected = np.asarray(CenterCrop(size)(image))
    crop = geometry(f"resize_short {size} bicubic", f"center_crop {size}")
    np.testing.assert_array_equal(crop.apply(pixels), expected)


def test_every_picture_is_decoded_once(folder):
    source = Counting(files(folder))
    first = ImageCache.open(source, (SQUASH, CROP))
    assert sorted(source.rows) == list(range(N))
    again = Counting(files(folder))
    second = ImageCache.open(again, (CROP, SQUASH))
    only = ImageCache.open(again, (CROP,))
    assert again.rows == []
    np.testing.assert_array_equal(first.images(CROP), second.images(CROP))
    np.testing.assert_array_equal(first.images(CROP), only.images(CROP))
    ImageCache.open(again, (CROP, geometry("squash 8 bicubic")))  # one more geometry, one more pass
    assert sorted(again.rows) == list(range(N))


def test_changed_pictures_are_decoded_anew(folder):
    ImageCache.open(files(folder), (SQUASH,))
    Image.new("RGB", (9, 9), (255, 0, 0)).save(folder / "5.jpg")
    changed = Counting(files(folder))
    assert (ImageCache.open(changed, (SQUASH,)).images(SQUASH)[5, :, :, 0] > 250).all()
    assert len(changed.rows) == N


def test_archive_equals_files(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for i in range(N):
            archive.write(folder / f"{i}.jpg", f"{i}.jpg")
    packed = FileImages([f"{i}.jpg" for i in range(N)], tmp_path, "all.zip")
    assert packed.name(2) == str(tmp_path / "all.zip" / "2.jpg")
    ours, theirs = (ImageCache.open(s, (CROP,)).images(CROP) for s in (packed, files(folder)))
    np.testing.assert_array_equal(ours, theirs)
    copy = pickle.loads(pickle.dumps(packed))
    np.testing.assert_array_equal(copy.decode(3), packed.decode(3))
    assert copy.fingerprint == packed.fingerprint
    with pytest.raises(BadImageError, match="all.zip' has no member 'none.jpg'"):
        FileImages(["none.jpg"], tmp_path, "all.zip").decode(0)


def test_bad_pictures_end_it_or_are_left_out(folder):
    truncate(folder / "7.jpg")
    (folder / "20.jpg").unlink()
    (folder / "21.jpg").write_bytes(b"")
    (folder / "22.jpg").write_text("no picture")
    with pytest.raises(UserError, match=r"7.jpg': broken or cut short .*data.on_bad_image=skip"):
        ImageCache.open(files(folder), (SQUASH,))
    cache = ImageCache.open(files(folder), (SQUASH, CROP), on_bad_image="skip")
    assert cache.bad_rows.tolist() == [7, 20, 21, 22] and cache.bad_rows.dtype == np.int64
    assert not cache.images(SQUASH)[cache.bad_rows].any() and cache.images(SQUASH)[8].any()
    assert "does not exist" in cache.bad[20] and "empty" in cache.bad[21]
    assert "no picture in a known format" in cache.bad[22]
    source = Counting(files(folder))
    again = ImageCache.open(source, (SQUASH,), on_bad_image="skip")
    assert again.bad == cache.bad and source.rows == []
    with pytest.raises(UserError, match="7.jpg"):  # the stored cache does not hide them
        ImageCache.open(files(folder), (SQUASH,))


def test_nothing_but_bad_pictures_and_unknown_choices(folder, tmp_path):
    with pytest.raises(UserError, match="None of the 2 pictures can be read; the first: .*x.jpg"):
        ImageCache.open(FileImages(["x.jpg", "y.jpg"], folder), (SQUASH,), on_bad_image="skip")
    with pytest.raises(UserError, match="data.on_bad_image=ignore"):
        ImageCache.open(files(folder), (SQUASH,), on_bad_image="ignore")
    with pytest.raises(UserError, match="no picture"):
        ImageCache.open(FileImages([], folder), (SQUASH,))
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_a_failed_build_leaves_nothing(folder, tmp_path):
    class Failing(Counting):
        def decode(self, row):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match="the disk is full"):
        ImageCache.open(Failing(files(folder)), (SQUASH,))
    assert [p.suffix for p in (tmp_path / "cache" / "images").iterdir()] == [".lock"]
    assert ImageCache.open(files(folder), (SQUASH,)).images(SQUASH)[0].any()


def test_arrays_of_the_right_size_are_passed_through(tmp_path, monkeypatch):
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path))
    source = ArrayImages(np.zeros((4, 24, 24, 3), np.uint8), "zeros")
    cache = ImageCache.open(source, (SQUASH, CROP))
    assert cache.images(SQUASH) is source.array and cache.images(CROP) is source.array
    assert not list(tmp_path.iterdir())
    both = ImageCache.open(source, (SQUASH, geometry("squash 8 bicubic")))
    assert both.images(SQUASH) is source.array
    assert both.images(geometry("squash 8 bicubic")).shape == (4, 8, 8, 3)


def test_the_array_of_32_px_resized_to_96(tmp_path, monkeypatch):
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    large = geometry("squash 96 bicubic")
    cache = ImageCache.open(ArrayImages(pixels, "random"), (large,))
    image = Image.fromarray(pixels[1]).resize((96, 96), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(cache.images(large)[1], np.asarray(image))


def test_shapes_of_their_own_are_kept_and_decoded_once(folder):
    truncate(folder / "7.jpg")
    source = Counting(files(folder))
    cache = ImageCache.open(source, (SHORT, CROP), on_bad_image="skip")
    again = ImageCache.open(source, (SHORT,), on_bad_image="skip")
    assert len(source.rows) == N and cache.bad_rows.tolist() == again.bad_rows.tolist() == [7]
    short = again.images(SHORT)
    assert isinstance(short, RaggedImages) and len(short) == N and SHORT.size is None
    resize = Resize(24, interpolation=InterpolationMode.BILINEAR)
    rows = np.array([30, 0, 36])
    for row, pixels in zip(rows, short[rows], strict=True):
        image = resize(Image.open(folder / f"{row}.jpg").convert("RGB"))
        np.testing.assert_array_equal(pixels, np.asarray(image))


def test_stores_of_several_sources_are_one(folder):
    parts = [FileImages([f"{i}.jpg" for i in range(*ends)], folder) for ends in ((0, 5), (5, N))]
    both = stack_images([ImageCache.open(part, (SHORT,)).images(SHORT) for part in parts])
    whole = ImageCache.open(files(folder), (SHORT,)).images(SHORT)
    rows = np.array([6, 2, 5, 4, 36])
    assert len(both) == N
    for ours, theirs in zip(both[rows], whole[rows], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_an_oblong_picture_is_refused_where_a_square_is_needed(folder, tmp_path):
    short = geometry("resize_short 24 bilinear")
    message = r"Picture '.*0.jpg' of 30×70 px is no square after \[resize_short 24 bilinear\]"
    with pytest.raises(UserError, match=message):
        ImageCache.open(files(folder), (short,))
    squares = ArrayImages(np.zeros((2, 32, 32, 3), np.uint8), "squares")
    assert ImageCache.open(squares, (short,)).images(short).shape == (2, 24, 24, 3)


def test_originals_are_decoded_at_every_access(folder):
    images = OriginalImages(files(folder))
    assert images[np.array([3])][0].shape == (67, 33, 3) and len(images) == N
    (folder / "3.jpg").unlink()
    with pytest.raises(UserError, match="Bad picture .*3.jpg': the file does not exist"):
        images[np.array([3])]


class Interrupting(Counting):
    """A source whose picture ``row`` interrupts, the first time it is asked for."""

    def __init__(self, source, row):
        super().__init__(source)
        self.row = row

    def decode(self, row):
        if row == self.row:
            self.row = None
            raise KeyboardInterrupt
        return super().decode(row)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(image_cache, "BLOCK_S", 0)
    for module in (image_cache, images):
        monkeypatch.setattr(module, "ROWS_PER_CHUNK", 5)


@pytest.mark.parametrize("fallocate", [True, False])
@pytest.mark.parametrize("form", [SQUASH, SHORT], ids=["squares", "ragged"])
def test_decoding_goes_on_behind_the_blocks_that_are_finished(
    folder, monkeypatch, small_blocks, caplog, form, fallocate
):
    if not fallocate:  # as on some file systems
        monkeypatch.delattr("os.posix_fallocate")
    caplog.set_level("INFO", "hashing")
    truncate(folder / "7.jpg")
    rows = np.arange(N)
    whole = ImageCache.open(files(folder), (form,), "skip")
    monkeypatch.setenv("HASHING_CACHE", str(folder.parent / "other"))
    source = Interrupting(files(folder), 23)
    with pytest.raises(KeyboardInterrupt):
        ImageCache.open(source, (form,), "skip")
    assert "pictures: 20 of 37 rows are kept, not done again" in caplog.text
    before = len(source.rows)
    again = ImageCache.open(source, (form,), "skip")
    assert sorted(source.rows[before:]) == list(range(20, N))
    assert again.bad == whole.bad and list(whole.bad) == [7]
    for ours, theirs in zip(again.images(form)[rows], whole.images(form)[rows], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    names = {p.suffix for p in (folder.parent / "other" / "images").iterdir()}
    assert names == {".lock", ".sums", ""}  # no unfinished work


def test_two_geometries_go_on_from_what_both_have(folder, small_blocks):
    with pytest.raises(KeyboardInterrupt):
        ImageCache.open(Interrupting(files(folder), 23), (SQUASH,))
    with pytest.raises(KeyboardInterrupt):  # SHORT has nothing, so SQUASH is made anew beside it
        ImageCache.open(Interrupting(files(folder), 12), (SQUASH, SHORT))
    source = Counting(files(folder))
    both = ImageCache.open(source, (SHORT, SQUASH))
    assert sorted(source.rows) == list(range(10, N))
    image = Image.open(folder / "3.jpg").convert("RGB").resize((24, 24), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(both.images(SQUASH)[3], np.asarray(image))


def test_pictures_that_change_while_they_are_read_leave_no_block_of_theirs(folder, small_blocks):
    class Changing(Counting):
        def decode(self, row):
            if row == 12:
                Image.new("RGB", (9, 9)).save(folder / "11.jpg")
            return super().decode(row)

        @property
        def fingerprint(self):
            return files(folder).fingerprint

        @fingerprint.setter
        def fingerprint(self, _):
            pass

    kept = folder / "11.jpg"
    data = kept.read_bytes()
    with pytest.raises(UserError, match="Pictures changed while they were read"):
        ImageCache.open(Changing(files(folder)), (SQUASH,))
    kept.write_bytes(data)
    source = Counting(files(folder))
    ImageCache.open(source, (SQUASH,))
    assert sorted(source.rows) == list(range(10, N))
