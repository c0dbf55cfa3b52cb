"""Sweeps of papers refuse data that are not the papers'."""

from __future__ import annotations

import shutil

import pytest

import main
from tests.dataset.sources.layouts import write_flickr25k


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Work in a folder whose data/flickr25k is prepared, with a few rows in the official layout."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "data" / "flickr25k"
    root.mkdir(parents=True)
    write_flickr25k(root)
    assert main.main(["prepare", "flickr25k", "--root", str(root)]) == 0
    return tmp_path


def test_another_count_than_the_papers_is_refused(tiny, capsys):
    assert main.main(["sweep", "papers/dcmht", "--output", "runs"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert "papers/dcmht repeats a paper, and flickr25k, split dcmht_first does not fit" in line
    assert "dataset.split.query=5120" in line
    assert not (tiny / "runs").exists()


def test_numbers_of_ones_own_are_accepted_and_missing_data_is_told_by_run(tiny, capsys):
    shutil.rmtree(tiny / "data")
    assert main.main(["sweep", "papers/dcmht", "--output", "runs"]) == 1
    assert "'data/flickr25k' is not a folder" in capsys.readouterr().err
