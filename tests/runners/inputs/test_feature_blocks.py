"""Feature extraction that is killed ends as one that is left alone, and does nothing twice."""

import os
import signal

import numpy as np
import pytest
import torch

from common.batch import Features
from models.base import Backbone
from runners.inputs import feature_file
from runners.inputs.features import FeatureCache

ROWS, BATCH = 230, 10
CAPTIONS = [f"caption {i}" for i in range(ROWS)]


class Encoder(Backbone):
    """Features that depend on the caption; notes each call, and may end the process in it."""

    fingerprint = "encoder"

    def __init__(self, calls, end=None):
        super().__init__()
        self.calls, self.end = calls, end

    def tokenize(self, texts):
        ids = torch.tensor([[int(text.split()[1]), 1] for text in texts])
        return ids, torch.zeros_like(ids, dtype=torch.bool)

    def encode_image(self, image, tokens=False):
        raise NotImplementedError

    def encode_text(self, text, mask, tokens=False):
        with open(self.calls, "a") as stream:
            stream.write(f"{int(text[0, 0])}\n")
        with open(self.calls) as stream:
            count = len(stream.readlines())
        if self.end is not None:
            self.end(count)
        values = torch.sin(text.float())
        return Features(values, values[:, :, None].repeat(1, 1, 3), mask)


def extract(calls, end=None):
    cache = FeatureCache(Encoder(calls, end), True, BATCH, torch.device("cpu"))
    return cache.texts(CAPTIONS)


def extract_in_child(calls, end):
    """Return the exit code of a process that extracts."""
    child = os.fork()
    if not child:
        extract(calls, end)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_file, "BLOCK_S", 0)
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "left_alone"))
    return tmp_path


def entries(folder):
    return {p.name: p.read_bytes() for p in (folder / "features").iterdir() if p.suffix == ".h5"}


def begun(calls):
    return [int(line) for line in calls.read_text().splitlines()]


def test_ten_kills(root, monkeypatch):
    extract(root / "undisturbed")
    expected = entries(root / "left_alone")
    assert begun(root / "undisturbed") == list(range(0, ROWS, BATCH))
    points = [1, 2, 3, 7, 8, 12, 18, 25, 28, 31]  # calls of the encoder, over all processes
    cache = root / "killed"
    monkeypatch.setenv("HASHING_CACHE", str(cache))

    def kill(count):
        if count in points:
            os.kill(os.getpid(), signal.SIGKILL)

    codes = [extract_in_child(root / "calls", kill) for _ in range(len(points) + 1)]
    assert codes == [-signal.SIGKILL] * len(points) + [0]
    assert entries(cache) == expected
    calls = begun(root / "calls")
    assert len(calls) == ROWS // BATCH + len(points)  # each kill cost the batch in work
    again = [calls[point - 1] for point in points]  # what was being encoded when it was killed
    assert [row for i, row in enumerate(calls) if i + 1 not in points] == list(
        range(0, ROWS, BATCH)
    )
    assert all(calls[point] == row for point, row in zip(points, again, strict=True))
    assert not [p for p in (cache / "features").iterdir() if p.name.endswith(".blocks")]


def test_ctrl_c_keeps_what_is_written_and_says_so(root, monkeypatch, caplog):
    monkeypatch.setattr(feature_file, "BLOCK_S", 1e9)
    caplog.set_level("INFO", "hashing")

    def interrupt(count):
        if count == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(root / "calls", interrupt)
    assert "text features: 40 of 230 rows are kept, not done again" in caplog.text
    bank = extract(root / "calls", interrupt)
    assert "text features of 230 rows (cached afterwards), 40 of them before" in caplog.text
    assert len(begun(root / "calls")) == ROWS // BATCH + 1
    expected = np.sin(np.array([[i, 1] for i in range(ROWS)], np.float32))
    np.testing.assert_allclose(bank.features.pooled, expected, rtol=1e-6)


def test_blocks_that_are_damaged_are_computed_again(root):
    def interrupt(count):
        if count == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(root / "calls", interrupt)
    (file,) = (root / "left_alone" / "features").glob("*.blocks/*.h5")
    data = bytearray(file.read_bytes())
    values = np.sin(np.float32(45))  # in the fifth block
    place = data.index(values.tobytes())
    data[place] ^= 1
    file.write_bytes(data)
    bank = extract(root / "calls")
    assert begun(root / "calls")[8:] == list(range(40, ROWS, BATCH))
    assert bank.features.pooled[45, 0] == values
