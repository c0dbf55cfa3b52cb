"""Operations on pictures against torchvision's, with the drawn parameters given."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp, kstest
from torchvision.transforms import (
    CenterCrop,
    InterpolationMode,
    RandomCrop,
    RandomResizedCrop,
    Resize,
)
from torchvision.transforms import functional as F

from dataset.augmentation import uniform
from dataset.operation_lists import ImageOperations, apply_drawn

SHAPES = [(64, 97), (91, 50), (72, 72), (300, 41)]
CROP = "random_resized_crop 24 scale 0.08-1 ratio 3/4-4/3 bilinear of original"
MANY = np.arange(4000)


def picture(shape, seed=0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC))


def operation(text: str):
    first = () if "of original" in text else ("squash 100 bicubic",)
    return ImageOperations.parse([*first, text], "data.train_image").operations[-1]


def numbers(item):
    return lambda stream: uniform(0, 0, np.array([item]), stream)[0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [24, 37])
def test_sizes_are_torchvisions(shape, size):
    pixels = picture(shape)
    image = Image.fromarray(pixels)
    bilinear = InterpolationMode.BILINEAR
    for text, transform in {
        f"resize_short {size} bilinear": Resize(size, bilinear),
        f"squash {size} bilinear": Resize((size, size), bilinear),
        f"squash {size} bicubic": Resize((size, size), InterpolationMode.BICUBIC),
        f"center_crop {size}": CenterCrop(size),
    }.items():
        made = operation(text).apply(pixels)
        np.testing.assert_array_equal(made, np.asarray(transform(image)), text)


@pytest.mark.parametrize("shape", SHAPES)
def test_given_boxes_flips_and_factors_are_carried_out_as_torchvision_does(shape):
    pixels = picture(shape)
    image = Image.fromarray(pixels)
    box = (3, 5, 31, 22)
    crop = F.resized_crop(image, *box, [24, 24], InterpolationMode.BILINEAR)
    np.testing.assert_array_equal(operation(CROP).apply(pixels, box), np.asarray(crop))
    flipped = operation("flip 0.5").apply(pixels, True)
    np.testing.assert_array_equal(flipped, np.asarray(F.hflip(image)))
    assert operation("flip 0.5").apply(pixels, False) is pixels
    jitter = operation("color_jitter brightness 0.2 contrast 0.3")
    bright_first = F.adjust_contrast(F.adjust_brightness(image, 1.1), 0.8)
    contrast_first = F.adjust_brightness(F.adjust_contrast(image, 0.8), 1.1)
    made = jitter.apply(flipped[:, ::-1], (1.1, 0.8, True))
    np.testing.assert_array_equal(made, np.asarray(bright_first))
    made = jitter.apply(pixels, (1.1, 0.8, False))
    np.testing.assert_array_equal(made, np.asarray(contrast_first))


def test_drawn_boxes_have_torchvisions_distribution():
    blank = torch.empty(3, 64, 90)
    torch.manual_seed(0)
    ours = np.array([operation(CROP).draw((64, 90, 3), numbers(i)) for i in MANY])
    theirs = [RandomResizedCrop.get_params(blank, (0.08, 1), (3 / 4, 4 / 3)) for _ in MANY]
    sides = [lambda b: b[:, 2] * b[:, 3], lambda b: b[:, 3] / b[:, 2], lambda b: b[:, 0]]
    for of in (*sides, lambda b: b[:, 1]):
        assert ks_2samp(of(ours), of(np.array(theirs))).pvalue > 1e-3
    assert (ours[:, :2] >= 0).all() and (ours[:, :2] + ours[:, 2:] <= [64, 90]).all()
    ours = np.array([operation("random_crop 60").draw((64, 90, 3), numbers(i)) for i in MANY])
    theirs = np.array([RandomCrop.get_params(blank, (60, 60)) for _ in MANY])
    assert (ours.max(0) == theirs.max(0)).all() and (ours.min(0) == theirs.min(0)).all()
    assert ks_2samp(ours[:, 1], theirs[:, 1]).pvalue > 1e-3


@pytest.mark.parametrize("shape", [(10, 400), (400, 10), (5, 6)])
def test_a_picture_that_no_box_fits_gives_its_middle(shape):
    text = "random_resized_crop 24 scale 1-1 ratio 3/4-4/3 bilinear of original"
    ours = operation(text).draw((*shape, 3), numbers(0))
    theirs = RandomResizedCrop.get_params(torch.empty(3, *shape), (1, 1), (3 / 4, 4 / 3))
    if shape != (5, 6):  # there boxes may fit, by chance
        assert ours == theirs
    assert ours[0] + ours[2] <= shape[0] and ours[1] + ours[3] <= shape[1]


def test_drawn_factors_and_flips():
    drawn = [
        operation("color_jitter brightness 0.05 contrast 2").draw((), numbers(i)) for i in MANY
    ]
    bright, contrast, first = np.array(drawn).T
    assert kstest((bright - 0.95) / 0.1, "uniform").pvalue > 1e-3
    assert kstest(contrast / 3, "uniform").pvalue > 1e-3  # from max(0, 1 - 2)
    assert 0.45 < first.mean() < 0.55
    flips = [operation("flip 0.2").draw((), numbers(i)) for i in MANY]
    assert 0.17 < np.mean(flips) < 0.23
    assert operation("color_jitter contrast 0.1").draw((), numbers(0))[0] == 1


def test_two_operations_of_a_kind_draw_apart():
    flips = ImageOperations.parse(["flip 0.5", "flip 0.5", "squash 8 bicubic"], "").operations[:2]
    drawn = []
    apply_drawn(flips, np.zeros((4, 4, 3), np.uint8), lambda k: drawn.append(k) or 0.5)
    assert len(set(drawn)) == 2 and min(drawn) > 0  # stream 0 draws captions
