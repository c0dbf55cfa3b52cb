"""AP of every query beside the metrics: which queries have one, and that it is kept."""

from __future__ import annotations

import numpy as np
import torch

from common.metrics import Histograms
from runners.evaluation.query_ap import query_ap, read_query_ap, write_query_ap

# rows at distances 0, 1 and 2 of three queries; the second has no relevant one
COUNTED = {
    "i2i": Histograms(
        torch.tensor([[1, 1, 1], [1, 1, 1], [0, 3, 0]]),
        torch.tensor([[0, 1, 1], [0, 0, 0], [0, 3, 0]]),
    )
}
FIRST = (1 / 2 + 2 / 3) / 2


def test_a_query_without_a_relevant_row_is_0_or_left_out():
    zero = query_ap(COUNTED, no_relevant="zero")["i2i"]
    np.testing.assert_allclose(zero, [FIRST, 0, 1], rtol=1e-6)
    skipped = query_ap(COUNTED, no_relevant="skip")["i2i"]
    np.testing.assert_allclose(skipped, [FIRST, np.nan, 1], rtol=1e-6)
    assert zero.dtype == skipped.dtype == np.float32


def test_what_is_written_is_read(tmp_path):
    values = query_ap(COUNTED, no_relevant="skip")
    write_query_ap(tmp_path, values)
    np.testing.assert_array_equal(read_query_ap(tmp_path, "i2i"), values["i2i"])
    assert read_query_ap(tmp_path, "i2t") is None
    assert read_query_ap(tmp_path / "gone", "i2i") is None
