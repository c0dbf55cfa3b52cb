"""What the user names: own files and plugins, and runs that outlive the files of their making."""

import pytest
import yaml

from common.config.layers import Layer
from common.config.run_config import compose, compose_layers
from tests.docs.test_guides import registered_as_before
from utils.errors import UserError

BASE = ("method=dsph", "dataset=folder", "dataset.root=x", "backbone=pixels")


@pytest.fixture
def restored():
    """Forget afterwards what a test's plugins register."""
    with registered_as_before():
        yield


def write_own(folder, name):
    """Write ``name.py``, which registers a loss, a dataset and an encoder called ``name``."""
    file = folder / f"{name}.py"
    file.write_text(
        "from common.registry import BACKBONES, DATASETS, LOSSES\n"
        "from dataset.folder import FolderConfig\n"
        "from models.backbones.pixels import PixelsConfig\n"
        "from models.base import HashLoss, Terms\n"
        f"DATASETS.register('{name}', config=FolderConfig)(lambda config, name: None)\n"
        f"BACKBONES.register('{name}', config=PixelsConfig)(lambda config, modalities: None)\n"
        f"@LOSSES.register('{name}', needs=('image_code',))\nclass Mine(HashLoss):\n"
        "    'Nothing.'\n    def forward(self, outputs, batch, progress): return Terms()\n"
    )
    return file


def files_of(config):
    """Return the plugins of a configuration."""
    return [plugin["file"] for plugin in config.resolved["plugins"]]


def write_own_method(folder, name):
    """Write ``name.py`` and ``name.yaml``, a method with the loss that the former registers."""
    write_own(folder, name)
    file = folder / f"{name}.yaml"
    file.write_text(
        f"plugins: [{name}.py]\nbackbone: pixels\nmodel: {{name: image_hash}}\n"
        f"loss: {{name: {name}}}\n"
        "optim: {name: adam, lr: 1, beta1: 0.5}\n"
    )
    return file


def test_a_run_of_an_own_method_needs_none_of_its_files(restored, tmp_path):
    method = write_own_method(tmp_path, "config_test_own")
    dataset, backbone = tmp_path / "shapes.yaml", tmp_path / "small.yaml"
    dataset.write_text("dataset: {name: folder, root: x}")
    backbone.write_text("backbone: {name: pixels, size: 8}")
    config = compose([f"method={method}", f"dataset={dataset}", f"backbone={backbone}"])
    assert (config.method, config.dataset_name) == ("config_test_own", "shapes")
    assert config.resolved["backbone"]["config"] == "small"
    assert config.resolved["dataset"]["config"] == "shapes"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(dict(config.resolved)))
    assert compose([], tmp_path / "config.yaml", "load") == config
    method.write_text("model: {name: dsph}\nbits: 5\nthis: is no method any more")
    for file in (dataset, backbone):
        file.unlink()
    assert compose([], tmp_path / "config.yaml", "load") == config
    again = Layer("sweep", config.resolved)
    assert compose_layers([again], "load").run_name == config.run_name
    plugin = f"plugins=[{tmp_path / 'config_test_own.py'}]"
    assert compose(["bits=8", plugin], tmp_path / "config.yaml").bits == 8


def test_a_run_of_an_own_method_called_as_one_of_ours(tmp_path):
    (tmp_path / "csq.yaml").write_text(
        "backbone: pixels\nmodel: image_hash\nloss: {name: hashnet}\n"
        "optim: {name: rmsprop, lr: 1}\n"
    )
    config = compose([f"method={tmp_path / 'csq.yaml'}", "dataset=folder", "bits=8"])
    assert (config.method, config.loss.name) == ("csq", "hashnet")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(dict(config.resolved)))
    assert compose([], tmp_path / "config.yaml") == config


def test_a_name_with_a_dot(tmp_path):
    (tmp_path / "a.v2.yaml").write_text("backbone: pixels\nmodel: image_hash\nloss: csq\n")
    (tmp_path / "b.v3.yaml").write_text("dataset: {name: folder, root: x}\n")
    config = compose([f"method={tmp_path / 'a.v2.yaml'}", f"dataset={tmp_path / 'b.v3.yaml'}"])
    assert (config.method, config.dataset_name) == ("a.v2", "b.v3")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(dict(config.resolved)))
    assert compose([], tmp_path / "config.yaml").run_name == config.run_name


def test_what_the_command_line_chooses_replaces_what_a_whole_run_held(tmp_path):
    held = compose([*BASE, "dataset.root=y", "runner.epochs=7"])
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(dict(held.resolved)))
    other = compose(["dataset=mat", "dataset.root=z"], file)
    assert (other.dataset_name, other.dataset.name) == ("mat", "mat")
    assert (other.runner.config.epochs, other.backbone.name) == (7, "pixels")
    assert compose(["backbone=resnet50"], file).backbone.name == "torchvision"
    method = compose(["method=csq"], file)
    assert method.loss == compose(["method=csq", "dataset=folder"]).loss
    assert method.model.name == "image_hash" and method.dataset.config.root == "y"
    assert compose(["dataset=folder"], file) == held


def test_plugins_of_all_layers_add_up(restored, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    method = write_own_method(tmp_path, "config_test_sum_a")
    (tmp_path / "there").mkdir()
    files = [str(tmp_path / "config_test_sum_a.py"), str(write_own(tmp_path, "config_test_sum_b"))]
    files.append(str(write_own(tmp_path / "there", "config_test_sum_c")))
    dataset = tmp_path / "there" / "d.yaml"
    dataset.write_text("plugins: config_test_sum_c.py\ndataset: config_test_sum_c")
    words = [f"method={method}", f"dataset={dataset}"]
    config = compose([*words, "plugins=[config_test_sum_b.py,config_test_sum_a.py]"])
    assert sorted(files_of(config)) == sorted(files)
    assert (config.loss.name, config.dataset.name) == ("config_test_sum_a", "config_test_sum_c")
    alone, twice = compose(words), compose([*words, f"plugins=[{files[0]}]"])
    assert alone.run_name == twice.run_name and alone.hash != config.hash
    assert compose([f"method={method}", "plugins=[]"]).loss.name == "config_test_sum_a"


def test_a_plugin_is_looked_for_here_and_then_beside_the_yaml(restored, tmp_path, monkeypatch):
    working_folder, yaml_folder = tmp_path / "here", tmp_path / "there"
    for folder in (working_folder, yaml_folder):
        folder.mkdir()
    method = write_own_method(yaml_folder, "config_test_beside")
    monkeypatch.chdir(working_folder)
    config = compose([f"method={method}", "dataset=folder"])
    assert files_of(config) == [str(yaml_folder / "config_test_beside.py")]
    (yaml_folder / "config_test_beside.py").rename(working_folder / "config_test_beside.py")
    with pytest.raises(UserError, match="'config_test_beside' is registered twice"):
        compose([f"method={method}", "dataset=folder"])  # so the one here is taken
    (working_folder / "config_test_beside.py").unlink()
    with pytest.raises(UserError, match="Plugin file 'config_test_beside.py' does not exist"):
        compose([f"method={method}", "dataset=folder"])


def test_another_component_is_called_by_its_own_name():
    config = compose(["method=csq", "dataset=folder", "backbone.name=pixels"])
    assert config.resolved["backbone"] == {
        "name": "pixels", "size": 32, "text_width": 512, "max_words": 64,
    }  # fmt: skip
    config = compose(["method=csq", "dataset=creatures_image", "dataset.name=folder"])
    assert config.dataset_name == config.dataset.name == "folder"
    assert compose(["method=csq", "dataset.name=folder"]).dataset_name == "folder"
    same = compose(["method=csq", "dataset=folder", "dataset.name=folder"])
    assert same == compose(["method=csq", "dataset=folder"])


def test_no_config_with_a_name_keeps_the_other_keys():
    config = compose([*BASE[:3], "backbone.name=pixels", "backbone.config=null", "backbone.size=8"])
    assert (config.backbone.name, config.backbone.config.size) == ("pixels", 8)


def test_a_run_with_a_component_of_its_own_name_composes_to_itself(tmp_path):
    # open_clip is what the encoder chosen by configs/base.yaml is registered as
    for name in ("timm", "open_clip"):
        words = ["dataset.name=folder", "backbone=pixels", f"backbone.name={name}"]
        config = compose(["method=csq", *words])
        assert "config" not in config.resolved["backbone"]
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(dict(config.resolved)))
        assert compose([], tmp_path / "config.yaml") == config


def test_a_registered_name_without_a_file_may_be_chosen(restored, tmp_path):
    config = compose(["method=csq", "dataset=folder", "backbone=timm", "backbone.model=resnet18"])
    assert (config.backbone.name, config.backbone.config.model) == ("timm", "resnet18")
    assert config.resolved["backbone"]["config"] == "timm"
    file = write_own(tmp_path, "config_test_chosen")
    words = ["method=csq", "dataset=config_test_chosen", "backbone=config_test_chosen"]
    config = compose([*words, f"plugins=[{file}]", "dataset.root=y"])
    assert (config.dataset_name, config.backbone.name) == ("config_test_chosen",) * 2
    assert config.dataset.config.root == "y"
    with pytest.raises(UserError, match=r"Unknown backbone 'tim'. Did you mean 'timm'\? Known: al"):
        compose(["method=csq", "dataset=folder", "backbone=tim"])


def test_a_dataset_that_the_method_s_plugin_registers(restored, tmp_path):
    name = "config_test_of_the_method"
    method = write_own_method(tmp_path, name)
    config = compose([f"method={method}", f"dataset={name}", f"backbone={name}"])
    assert config.dataset.name == config.backbone.name == name
