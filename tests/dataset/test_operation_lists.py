"""Lists of operations: reading, scaling, what is done once, and what is refused."""

import pytest

from dataset.operation_lists import ImageOperations
from utils.errors import UserError

CROP = "random_resized_crop 224 scale 0.08-1 ratio 3/4-4/3 bilinear of original"
LISTS = [  # of the papers' programs
    ["resize_short 224 bicubic", "center_crop 224"],
    ["squash 224 bicubic"],
    ["flip 0.5", CROP],
    [CROP, "flip 0.5"],
    ["squash 256 bilinear", "center_crop 224"],
    ["resize_short 256 bilinear", "flip 0.5", "random_crop 224"],
    ["resize_short 256 bilinear", "random_crop 224", "flip 0.5"],
    ["resize_short 224 bilinear"],
    ["squash 224 bilinear", "flip 0.5", "color_jitter brightness 0.05 contrast 0.05"],
]


def read(*words: str) -> ImageOperations:
    return ImageOperations.parse(words, "data.train_image")


@pytest.mark.parametrize("words", LISTS)
def test_every_list_is_written_as_it_is_read(words):
    operations = read(*words)
    assert operations.size == 224
    assert [str(operation) for operation in operations.operations] == words
    assert str(operations) == f"[{', '.join(words)}]"
    assert operations.scaled(224) == operations


def test_what_is_done_once():
    once = [len(read(*words).split()[0].operations) for words in LISTS]
    assert once == [2, 1, 0, 0, 2, 1, 1, 1, 1]
    sides = [read(*words).split()[0].size for words in LISTS]
    assert sides == [224, 224, None, None, 224, None, None, 224, 224]
    assert [read(*words).is_random for words in LISTS] == [
        False, False, True, True, False, True, True, False, True,
    ]  # fmt: skip
    assert read("squash 256 bilinear", "random_crop 224").split()[0].size == 256
    assert ImageOperations.parse(None, "data.eval_image") == read("squash 224 bicubic")


def test_numbers_of_px_are_scaled_to_an_encoder():
    assert str(read(*LISTS[5]).scaled(64)) == (
        "[resize_short 73 bilinear, flip 0.5, random_crop 64]"
    )
    assert read(*LISTS[4]).scaled(1).size == 1
    assert str(read(CROP).scaled(384)).startswith("[random_resized_crop 384 scale 0.08-1")


def test_pictures_that_come_out_as_they_are():
    geometry = read(*LISTS[0]).scaled(64).split()[0]
    assert geometry.keeps((64, 64, 3)) and not geometry.keeps((64, 65, 3))
    assert not geometry.keeps((32, 32, 3)) and not read(*LISTS[4]).split()[0].keeps((224, 224, 3))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resize_shrt 256 bilinear"], "Did you mean 'resize_short'. Accepted: resize_short N bic"),
        (
            ["resize_short 256"],
            "'resize_short 256' is not understood; it is written resize_short N",
        ),
        (["squash 224 nearest"], "it is written squash N bicubic|bilinear"),
        (["squash 0 bicubic"], "N is at least 1"),
        (["squash 8 bicubic", "flip 1.5"], "p is a probability, 0 to 1"),
        (["squash 8 bicubic", "flip"], "it is written flip p"),
        (["squash 8 bicubic", "flip 1.2.3"], "it is written flip p"),
        (["squash 8 bicubic", "color_jitter"], "it is written color_jitter .brightness b"),
        ([CROP.replace("3/4", "3/0")], "is not understood; it is written random_resized_crop N"),
        ([CROP.replace("0.08-1", "0-1")], "scale is a share a-b with 0 < a <= b <= 1"),
        ([], r"data.train_image=.. is not accepted: it gives pictures no size"),
        ([""], "'' is no operation"),
        (["flip 0.5"], "it gives pictures no size; end it with squash N or a crop"),
        (["center_crop 224"], "may be larger than a picture; put resize_short or squash before"),
        (["resize_short 200 bilinear", "random_crop 224"], "does not fit in the 200 px before it"),
        ([CROP.replace(" of original", "")], "end it with 'of original'"),
        (["squash 256 bicubic", CROP], "comes after another size; leave 'of original' out"),
        (["flip 0.5", "resize_short 224 bicubic"], "comes after a random operation; put it first"),
    ],
)
def test_what_is_not_understood_is_refused_with_a_sentence(words, message):
    with pytest.raises(UserError, match=message) as error:
        read(*words)
    assert str(error.value).startswith("data.train_image")
