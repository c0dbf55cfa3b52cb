"""Cached features that are damaged are computed again, and the log says so."""

import h5py
import numpy as np
import pytest

from tests.helpers import QUICK, outcome, run


def zeroed(file):
    size = file.stat().st_size
    with open(file, "r+b") as stream:
        stream.seek(size // 2)
        stream.write(bytes(size - size // 2))


def truncated(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def other_values(file):
    with h5py.File(file, "a") as content:
        content["pooled"][:] = np.asarray(content["pooled"])[::-1]


@pytest.mark.parametrize("damage", [zeroed, truncated, other_values])
def test_features(captioned, tmp_path, monkeypatch, caplog, damage):
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "cache"))
    words = [*captioned, *QUICK, "method=lsh"]
    before = outcome(run(*words, f"output={tmp_path / 'one'}"))
    files = sorted((tmp_path / "cache" / "features").glob("*.h5"))
    assert len(files) == 2
    for file in files:
        damage(file)
    assert outcome(run(*words, f"output={tmp_path / 'two'}")) == before
    for file in files:
        assert f"the cache entry '{file}' is damaged" in caplog.text
