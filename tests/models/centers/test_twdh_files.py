"""TwDH's centres and transforms from files."""

import pytest
import torch

from models.centers.twdh_files import TwDHFiles
from utils.errors import UserError


@pytest.fixture
def folder(tmp_path):
    for name in ("long", "short", "trans/8"):
        (tmp_path / name).mkdir(parents=True)
    torch.save(torch.ones(2, 8), tmp_path / "long" / "8.pkl")
    torch.save(-torch.ones(2, 4, dtype=torch.int8), tmp_path / "short" / "4.pkl")
    torch.save(torch.zeros(2, 16), tmp_path / "short" / "16.pkl")
    torch.save(torch.arange(128.0).reshape(16, 8), tmp_path / "trans" / "8" / "mirflickr_4.pt")
    return tmp_path


def test_centres_and_transforms(folder):
    files = TwDHFiles(folder)
    assert files.long_centers(2, 8).tolist() == [[1.0] * 8] * 2
    short = files.short_centers(2, 4)
    assert short.dtype == torch.float32 and short.tolist() == [[-1.0] * 4] * 2
    assert files.transform(8, 4)[1, 2] == 10


def test_slips(folder):
    files = TwDHFiles(folder)
    with pytest.raises(UserError, match=r"short' has no file of 8 bits \(there: 4, 16\)"):
        files.short_centers(2, 8)
    with pytest.raises(UserError, match=r"8.pkl' is of shape \[2, 8\].* of 3 classes and 8 bits"):
        files.long_centers(3, 8)
    with pytest.raises(UserError, match="or not of -1 and 1"):
        files.short_centers(2, 16)
    with pytest.raises(UserError, match=r"trans/16' has no file of 4 bits \(there: none\)"):
        files.transform(16, 4)
    torch.save(torch.zeros(8, 16), folder / "trans" / "8" / "mirflickr_4.pt")
    with pytest.raises(UserError, match="a transform of 16 by 8 finite numbers"):
        files.transform(8, 4)
    with pytest.raises(UserError, match="has no folders long and short"):
        TwDHFiles(folder / "long")
