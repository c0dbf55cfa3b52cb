"""Whose code runs: what the user names does, what a run folder names does not."""

import hashlib
import py_compile

import pytest
import yaml

from common.config.layers import Layer
from common.config.run_config import compose, compose_layers, eval_settings, read_complete
from common.registry import load_plugin
from utils.errors import UserError

WORDS = ("method=csq", "dataset=folder", "backbone=pixels")


@pytest.fixture
def plugin(tmp_path):
    """Return a plugin that leaves a file ``ran`` beside it."""
    file = tmp_path / "p.py"
    file.write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write('x')\n")
    return file


@pytest.fixture
def received(tmp_path, plugin):
    """Return the config.yaml of a stranger's run, which names the plugin with its hash."""
    folder = tmp_path / "run"
    folder.mkdir()
    sha256 = hashlib.sha256(plugin.read_bytes()).hexdigest()
    named = [{"file": str(plugin), "sha256": sha256}]
    content = {**compose(WORDS).resolved, "plugins": named}
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    return folder / "config.yaml"


def ran(plugin):
    """Return how often the plugin ran."""
    file = plugin.with_name("ran")
    return len(file.read_text()) if file.exists() else 0


@pytest.mark.parametrize("given", ["word", "sweep", "config", "method", "dataset", "backbone"])
def test_what_the_user_names_runs(given, plugin, tmp_path):
    if given == "word":
        compose([*WORDS, f"plugins=[{plugin}]"])
    elif given == "sweep":
        compose_layers([Layer("s.yaml", {"plugins": "p.py"}, tmp_path / "s.yaml"), layer_of(WORDS)])
    elif given == "config":
        (tmp_path / "mine.yaml").write_text("plugins: [p.py]\n")
        compose(WORDS, tmp_path / "mine.yaml")
    else:
        text = {
            "method": "plugins: p.py\nmodel: image_hash\nloss: csq\n",
            "dataset": "plugins: p.py\ndataset: folder\n",
            "backbone": "plugins: p.py\nbackbone: pixels\n",
        }[given]
        (tmp_path / "mine.yaml").write_text(text)
        compose([*WORDS, f"{given}={tmp_path / 'mine.yaml'}"])
    assert ran(plugin) == 1


def layer_of(words):
    """Return words as a layer."""
    return Layer("command line", dict(word.split("=") for word in words))


@pytest.mark.parametrize("name", ["config.yaml", "other.yaml", "old.yaml"])
def test_a_run_s_plugin_does_not_run_by_itself(name, received, plugin):
    file = received.with_name(name)
    content = yaml.safe_load(received.read_text())
    if name == "old.yaml":  # as runs wrote it before: no hash
        content["plugins"] = [str(plugin)]
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError) as caught:
        compose([], file)
    said = str(caught.value)
    known = "no hash recorded" if name == "old.yaml" else hashlib.sha256(plugin.read_bytes())
    known = known if isinstance(known, str) else known.hexdigest()
    for part in (str(file), str(plugin), known, "--trust", "plugins=[FILE]"):
        assert part in said
    assert "\n" not in said and ran(plugin) == 0


def test_a_run_folder_s_file_is_received_though_it_is_not_whole(received, plugin):
    received.write_text(f"plugins: [{plugin}]\nbits: 8\n")
    with pytest.raises(UserError, match="needs the plugin"):
        compose(WORDS, received)
    evil = received.with_name("evil.yaml")
    evil.write_text(f"plugins: [{plugin}]\nmodel: image_hash\nloss: csq\n")
    received.write_text(f"method: {evil}\n")  # a file that it chooses is received, too
    with pytest.raises(UserError, match="evil.yaml' needs the plugin"):
        compose(WORDS[1:], received)
    assert ran(plugin) == 0


@pytest.mark.parametrize("group", ["method", "dataset", "backbone"])
def test_a_run_s_file_given_as_another_kind_of_yaml(group, received, plugin):
    words = [word for word in WORDS if not word.startswith(group)]
    with pytest.raises(UserError, match="needs the plugin"):
        compose([*words, f"{group}={received}"])
    assert ran(plugin) == 0


def test_readers_that_need_none_run_none(received, plugin):
    content = yaml.safe_load(received.read_text())
    assert read_complete(content).resolved["plugins"] == []
    assert eval_settings([Layer("x", content), Layer("y", {"eval": {"at": [5]}})]).at == [5]
    content["loss"] = {"name": "of_the_plugin"}  # unknown without it, and not needed
    assert eval_settings([Layer("x", content)]).at == ["all"]
    assert ran(plugin) == 0


def test_trust_shows_file_and_hash_and_runs(received, plugin, monkeypatch):
    said = []
    monkeypatch.setattr("common.registry.log.warning", lambda text, *a: said.append(text % a))
    config = compose([], received, "load")
    assert ran(plugin) == 1 and config.resolved["plugins"][0]["file"] == str(plugin)
    (line,) = said
    assert str(plugin) in line and hashlib.sha256(plugin.read_bytes()).hexdigest() in line


def test_a_plugin_of_the_user_s_stands_for_the_run_s(received, plugin, tmp_path, monkeypatch):
    copy = tmp_path / "copy.py"
    copy.write_bytes(plugin.read_bytes())
    whole = compose([], received, "load")
    config = compose([f"plugins=[{copy}]"], received)
    assert [entry["file"] for entry in config.resolved["plugins"]] == [str(copy)]
    assert config.run_name == whole.run_name  # the code is the same
    said = []
    monkeypatch.setattr("common.config.plugins.log.warning", lambda text, *a: said.append(text % a))
    copy.write_text("other = 1")
    other = tmp_path / "other.py"
    other.write_text("other = 1")
    assert compose([f"plugins=[{other}]"], received).run_name != whole.run_name
    assert len(said) == 1 and str(plugin) in said[0]


def test_a_plugin_that_changed_since_is_refused(received, plugin):
    plugin.write_text(plugin.read_text() + "# changed")
    with pytest.raises(UserError, match="but the run was made with [0-9a-f]{64}, which is other c"):
        compose([], received, "load")
    plugin.unlink()
    with pytest.raises(UserError, match=r"does not exist; give plugins=\[FILE\]"):
        compose([], received, "load")
    assert ran(plugin) == 0


def test_compiled_files_beside_a_plugin_do_not_run(plugin, tmp_path):
    harmless = plugin.read_text()
    plugin.write_text(f"open({str(tmp_path / 'evil')!r}, 'w')\n")
    py_compile.compile(str(plugin), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    plugin.write_text(harmless)
    load_plugin(plugin)
    assert ran(plugin) == 1 and not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    "text", ["${oc.env:A_SECRET}", "a ${oc.env:A_SECRET}", "${bits}", "${oc.env:A_SECRET", "${"]
)
def test_placeholders_are_refused(text, tmp_path, monkeypatch):
    monkeypatch.setenv("A_SECRET", "hunter2")
    with pytest.raises(UserError) as caught:
        compose([*WORDS, f"dataset.root={text}"])
    assert "'dataset.root' holds a placeholder" in str(caught.value)
    file = tmp_path / "mine.yaml"
    for body, key in (
        (f"dataset:\n  root: '{text}'\n", "dataset.root"),
        (f"eval:\n  at: [1, '{text}']\n", "eval.at"),
    ):
        file.write_text(body)
        with pytest.raises(UserError) as caught:
            compose(WORDS, file)
        said = str(caught.value)
        assert said.startswith(f"{file}: '{key}") and "hunter2" not in said and "\n" not in said


@pytest.mark.parametrize("plugins", ["3", "[{}]", "[{file: 3}]", "[{file: a.py, other: 1}]"])
def test_what_is_no_list_of_files(plugins):
    with pytest.raises(UserError, match="is not accepted; a list of Python files is needed"):
        compose([*WORDS, f"plugins={plugins}"])
