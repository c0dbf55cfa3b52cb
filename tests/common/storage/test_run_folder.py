"""Run folders: when a run is done, who may work on it, and what its folder says."""

import pytest
import yaml

from common.config.run_config import compose
from common.storage.run_folder import RunFolder, now, surroundings
from utils.errors import UserError


@pytest.fixture
def config(tmp_path):
    return compose(["method=csq", "dataset=folder", "backbone=pixels", f"output={tmp_path}"])


def test_create_writes_the_resolved_config_once(config):
    folder = RunFolder.create(config)
    assert folder.path.name == config.run_name
    assert yaml.safe_load(folder.config_file.read_text()) == config.resolved
    assert compose([], folder.config_file) == config
    before = folder.config_file.stat().st_mtime_ns
    assert RunFolder.create(config).config_file.stat().st_mtime_ns == before


def test_done_needs_the_word_and_the_results(config):
    folder = RunFolder.create(config)
    assert not folder.is_done and folder.status() == {}
    folder.set_status("done")
    assert not folder.is_done
    folder.metrics_file.write_text("{}")
    folder.codes_file.write_text("")
    assert folder.says_done and not folder.is_done  # they are not what a run writes
    folder.set_done(seconds=1.0)
    assert folder.is_done
    folder.set_status("running")
    assert not folder.is_done


def test_status_keeps_what_was_said_before(config):
    folder = RunFolder.create(config)
    folder.set_status("running", host="here", error=None)
    folder.set_status("failed", error="because")
    assert folder.status() == {"state": "failed", "host": "here", "error": "because"}


@pytest.mark.parametrize("torn", ["", "{", "[1]"])
def test_a_torn_status_is_no_status(config, torn):
    folder = RunFolder.create(config)
    (folder.path / "status.json").write_text(torn)
    assert folder.status() == {}


def test_metrics_that_are_not_there(config):
    folder = RunFolder.create(config)
    folder.set_status("failed")
    with pytest.raises(UserError, match=r"no metrics.json yet \(its state: failed\)"):
        folder.metrics()
    folder.metrics_file.write_text("{")
    with pytest.raises(UserError, match="metrics.json' is not readable JSON"):
        folder.metrics()


def test_no_run_folder(tmp_path):
    with pytest.raises(UserError, match="is not a run folder .*give the path that train printed"):
        RunFolder.existing(tmp_path)


def test_a_run_is_leased_by_one_at_a_time(config):
    folder = RunFolder.create(config)
    with (
        folder.leased(),
        pytest.raises(UserError, match="is being worked on by another process"),
        folder.leased(),
    ):
        pass
    with folder.leased():
        pass


def test_a_file_in_the_way(config, tmp_path):
    (tmp_path / config.run_name).write_text("")
    with pytest.raises(UserError, match="Cannot create the run folder .*in the way"):
        RunFolder.create(config)


def test_surroundings():
    details = surroundings()
    assert {"host", "pid", "started", "versions", "git_revision"} <= set(details)
    assert set(details["versions"]) >= {"python", "torch"}
    assert now().endswith("+00:00")
