import pytest

from common.directions import DIRECTIONS, sides, usual_directions
from utils.errors import UserError


def test_sides():
    assert [sides(direction) for direction in DIRECTIONS] == [
        ("image", "text"), ("text", "image"), ("image", "image"), ("text", "text"),
    ]  # fmt: skip
    with pytest.raises(UserError, match="Unknown direction 'i2s'. Did you mean 'i2t'?"):
        sides("i2s")


@pytest.mark.parametrize(
    ("query", "database", "expected"),
    [
        (["image", "text"], ["image", "text"], ["i2t", "t2i"]),
        (["image"], ["image", "text"], ["i2t"]),
        (["text"], ["image"], ["t2i"]),
        (["text"], ["text"], ["t2t"]),
        (["image"], ["image"], ["i2i"]),
    ],
)
def test_usual_directions(query, database, expected):
    assert usual_directions(query, database) == expected
