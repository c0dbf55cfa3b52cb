"""A run with a plugin that came from elsewhere: what may be done with it, what is asked first."""

import hashlib
import shutil

import pytest
import yaml

import main
from common.config.run_config import compose
from tests.docs.test_guides import registered_as_before
from tests.helpers import QUICK, run

PLUGIN = """
from common.registry import LOSSES, MODELS
from models.base import HashLoss, Terms
open({ran!r}, "a").write("x")
MODELS.register("received_model", config=MODELS.get("dsph").config)(MODELS.get("dsph").target)

@LOSSES.register("received_loss", needs=("image_code", "text_code"))
class Mine(HashLoss):
    "Codes to +-1."
    def forward(self, outputs, batch, progress):
        codes = (outputs.image_code, outputs.text_code)
        return Terms(quant=sum((code.abs() - 1).pow(2).mean() for code in codes))
"""


@pytest.fixture(scope="module")
def original(toy_root, tmp_path_factory):
    """Return a finished run whose model and loss are of a plugin, and the plugin."""
    root = tmp_path_factory.mktemp("elsewhere")
    plugin = root / "p.py"
    plugin.write_text(PLUGIN.format(ran=str(root / "ran")))
    words = ["dataset=folder", f"dataset.root={toy_root / 'captioned'}", "dataset.csv=list.csv"]
    words += ["backbone=pixels", "backbone.size=8", "backbone.text_width=32", "bits=16", *QUICK]
    words += ["method=dsph", "model.name=received_model", "loss.name=received_loss"]
    words += [f"plugins=[{plugin}]", f"output={root / 'runs'}", "eval.val_size=6"]
    with pytest.MonkeyPatch.context() as patch, registered_as_before():
        patch.setenv("HASHING_CACHE", str(toy_root / "cache"))
        folder = run(*words).path
    return folder, plugin, words


@pytest.fixture
def received(original, captioned, tmp_path):
    """Return a copy of the run, and of what its plugin leaves when it runs; nothing has run."""
    folder, plugin, _ = original
    copy = tmp_path / "runs" / folder.name
    shutil.copytree(folder, copy)
    ran = plugin.with_name("ran")
    ran.unlink(missing_ok=True)
    with registered_as_before():
        yield copy, plugin, ran


def test_the_run_records_its_plugin(original):
    folder, plugin, words = original
    sha256 = hashlib.sha256(plugin.read_bytes()).hexdigest()
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["plugins"] == [{"file": str(plugin), "sha256": sha256}]
    with registered_as_before():
        assert compose(words).run_name == folder.name  # the same command resumes it


@pytest.mark.parametrize(
    "command",
    [
        "evaluate {run}", "evaluate {run} eval.at=[all,3]", "report {runs}",
        "report {runs} --html {runs}/page.html", "train --config {run}/config.yaml --print-config",
        "train --config {run}/config.yaml --print-config bits=8",
    ],
)  # fmt: skip
def test_commands_that_need_no_plugin_run_none(command, received, capsys):
    run, plugin, ran = received
    words = command.format(run=run, runs=run.parent).split()
    assert main.main(words) == 0
    captured = capsys.readouterr()
    assert not ran.exists()
    if "--print-config" in words:
        shown = yaml.safe_load(captured.out)
        assert shown["loss"]["name"] == "received_loss" and shown["plugins"][0]["sha256"]
        assert shown["bits"] == (8 if "bits=8" in words else 16)
        assert "shown unchecked" in captured.err


@pytest.mark.parametrize(
    "command",
    [
        "search {run} --text bee", "encode {run} --texts {run}/texts.txt --out {run}/x.npz",
        "train --config {run}/config.yaml", "train --config {run}/renamed.yaml",
    ],
)  # fmt: skip
def test_others_say_what_they_need_and_run_it_when_asked(command, received, capsys):
    run, plugin, ran = received
    (run / "texts.txt").write_text("a bee\n")
    shutil.copy(run / "config.yaml", run / "renamed.yaml")
    words = command.format(run=run).split()
    sha256 = hashlib.sha256(plugin.read_bytes()).hexdigest()
    assert main.main(words) == 2
    said = capsys.readouterr().err
    assert not ran.exists() and said.count("\n") == 1
    assert all(part in said for part in (str(plugin), sha256, "--trust", "plugins=[FILE]"))
    for consent in ("--trust", f"plugins=[{plugin}]"):
        ran.unlink(missing_ok=True)
        with registered_as_before():
            assert main.main([*words, consent]) == 0
        assert ran.read_text() == "x"
        shown = capsys.readouterr().err
        assert (str(plugin) in shown and sha256 in shown) == (consent == "--trust")


def test_verify_and_prepare_take_no_plugin_of_a_run(received, capsys):
    run, _, ran = received
    main.main(["verify", str(run / "config.yaml"), "--quick"])
    assert main.main(["prepare", str(run / "config.yaml")]) == 2
    assert not ran.exists()


def test_a_run_takes_no_other_settings(received, capsys):
    run, _, ran = received
    assert main.main(["search", str(run), "bits=8", "--text", "bee"]) == 2
    assert "'bits=8' is not accepted: the run has its settings" in capsys.readouterr().err
    assert not ran.exists()
