"""Composing a run's configuration: layers, switches of components, errors, the hash."""

import dataclasses
import hashlib

import pytest
import yaml

from common.config import layers
from common.config.layers import CONFIGS, config_names
from common.config.run_config import compose
from utils.errors import UserError

BASE = ("method=dsph", "dataset=folder", "dataset.root=x", "backbone=pixels")


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A configs folder of our own, in which every layer sets the same key."""
    files = {
        "base.yaml": "bits: 1\nseed: 7\nrunner: standard\noptim: {name: adam, lr: 1}\n"
        "data: {workers: 1, eval_batch_size: 1}\nbackbone: one",
        "dataset/one.yaml": "dataset: {name: folder}\nbits: 2\ndata: {workers: 2}",
        "backbone/one.yaml": "backbone: pixels\nbits: 3",
        "backbone/two.yaml": "backbone: {name: pixels, size: 8}\nbits: 3",
        "method/one.yaml": "model: image_hash\nloss: csq\nbits: 4\nbackbone: two",
        "method/two.yaml": "model: image_hash\nloss: csq",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(layers, "CONFIGS", tmp_path)
    return tmp_path


def test_later_layers_win(tree):
    top = tree / "top.yaml"
    top.write_text("bits: 5")
    words = ["method=one", "dataset=one"]
    assert compose([*words, "bits=6"], top).bits == 6
    assert compose(words, top).bits == 5
    assert compose(words).bits == 4
    assert compose(["method=two", "dataset=one"]).bits == 3
    (tree / "backbone" / "one.yaml").write_text("backbone: pixels")
    assert compose(["method=two", "dataset=one"]).bits == 2
    (tree / "dataset" / "one.yaml").write_text("dataset: folder")
    plain = compose(["method=two", "dataset=one"])
    assert (plain.bits, plain.seed, plain.data.workers, plain.data.eval_batch_size) == (1, 7, 1, 1)


def test_sections_are_merged_key_by_key(tree):
    config = compose(["method=two", "dataset=one", "data.captions=first"])
    assert (config.data.workers, config.data.eval_batch_size, config.data.captions) == (
        2,
        1,
        "first",
    )


def test_who_chooses_the_backbone(tree):
    assert compose(["method=two", "dataset=one"]).backbone.config.size == 32
    assert compose(["method=one", "dataset=one"]).backbone.config.size == 8
    assert compose(["method=one", "dataset=one", "backbone=one"]).backbone.config.size == 32
    both = compose(["method=two", "dataset=one", "backbone.size=16", "backbone=two"])
    assert both.backbone.config.size == 16


def test_nothing_is_chosen(tree):
    with pytest.raises(UserError, match="No method is chosen; give method=NAME, one of: one, two"):
        compose(["dataset=one"])


def variants(method):
    """Words on top of the YAML files: nothing, and what switches components."""
    yield ()
    if method not in ("itq", "lsh"):
        yield ("optim.name=sgd", "optim.momentum=0.9", "schedule=cosine")
        yield ("optim.groups.head.name=adamw", "optim.groups.backbone.schedule=step")


@pytest.mark.parametrize("method", config_names("method"))
def test_a_resolved_config_composes_to_itself(method, tmp_path):
    datasets = config_names("dataset")
    cases = [(d, ()) for d in datasets] + [("mat", v) for v in variants(method)]
    for dataset, words in cases:
        config = compose([f"method={method}", f"dataset={dataset}", *words])
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(dict(config.resolved)))
        again = compose([], tmp_path / "config.yaml")
        assert again.resolved == config.resolved
        assert again.run_name == config.run_name
        assert again.optim == config.optim and again.model.config == config.model.config


@pytest.mark.parametrize("backbone", config_names("backbone"))
def test_composing_loads_no_weights(backbone, monkeypatch):
    import safetensors.torch
    import torch

    def refuse(*_, **__):
        raise AssertionError("weights were loaded")

    for module, name in ((safetensors.torch, "load_file"), (torch, "load"), (torch.jit, "load")):
        monkeypatch.setattr(module, name, refuse)
    config = compose(["method=csq", "dataset=folder", f"backbone={backbone}"])
    assert config.resolved["backbone"]["config"] == backbone


@pytest.mark.parametrize("sweep", config_names("sweep"))
def test_sweeps_compose(sweep):
    from runners.sweeps.sweep import expand, read_sweep, sweep_file

    path = sweep_file(sweep)
    assert expand(read_sweep(path), path)


def test_shorthand_of_a_name_and_its_keys():
    config = compose(["method=csq", "dataset=folder", "dataset.root=x", "runner=standard"])
    assert (config.dataset_name, config.dataset.config.root) == ("folder", "x")
    turned = compose(["method=csq", "dataset.root=x", "dataset=folder"])
    assert turned.resolved == config.resolved
    assert compose(["method=csq", "dataset=mat", "dataset.root=x", "dataset=folder"]) == config


def test_a_file_may_be_chosen_by_its_path(tmp_path):
    (tmp_path / "mine.yaml").write_text("dataset: {name: folder, root: y}")
    config = compose(["method=csq", f"dataset={tmp_path / 'mine.yaml'}"])
    assert (config.dataset_name, config.dataset.config.root) == ("mine", "y")


def test_another_component_drops_the_keys_of_the_previous():
    assert compose([*BASE, "method=dcmht_linear"]).loss.config.vartheta == 0.75
    config = compose([*BASE, "method=dcmht_linear", "loss.name=dsph", "loss.alpha=0.5"])
    assert config.resolved["loss"] == {
        "name": "dsph", "alpha": 0.5, "threshold": None, "proxy_seed": 0,
    }  # fmt: skip
    with pytest.raises(UserError, match="'loss.vartheta' is not known"):
        compose([*BASE, "method=dcmht_linear", "loss.name=dsph", "loss.vartheta=0.5"])


def test_another_optimizer_keeps_rate_and_groups():
    config = compose([*BASE, "method=cosine_proxy", "optim.name=sgd"])
    assert {name: group.lr for name, group in config.optim.items()} == {
        "backbone": 1e-5, "head": 1e-3, "proxies": 1e-3,
    }  # fmt: skip
    assert {group.optimizer.name for group in config.optim.values()} == {"sgd"}
    assert config.optim["head"].optimizer.config.weight_decay == 0  # adamw's 0.01 is gone


def test_groups_start_from_what_the_loss_recommends():
    config = compose([*BASE, "optim.groups.proxies.lr=0.5", "schedule=cosine"])
    proxies, head = config.optim["proxies"], config.optim["head"]
    assert (proxies.optimizer.name, proxies.lr, proxies.schedule.name) == ("sgd", 0.5, "constant")
    assert (head.optimizer.name, head.lr, head.schedule.name) == ("bertadam", 1e-3, "cosine")
    assert head.optimizer.config.weight_decay == 0.2


def test_methods_without_loss_have_no_optimizer():
    config = compose(["method=lsh", "dataset=folder"])
    assert config.loss is None and config.optim == {}
    assert config.resolved["loss"] == {"name": "none"} and config.resolved["optim"] == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("method=dcmth", "Unknown method 'dcmth'. Did you mean 'dcmht'?"),
        ("dataset=flickr8", "Unknown dataset 'flickr8'. Did you mean 'flickr8k'?"),
        ("backbone=pixel", "Unknown backbone 'pixel'. Did you mean 'pixels'?"),
        ("model.name=dsh", "command line: Unknown model 'dsh'. Did you mean 'dsph'?"),
        ("loss=cqs", "command line: Unknown loss 'cqs'. Did you mean 'csq'?"),
        ("optim.name=bertadm", "command line: Unknown optimizer 'bertadm'. Did you mean 'bert"),
        ("schedule=cosin", "command line: Unknown scheduler 'cosin'. Did you mean 'cosine'?"),
        ("runner=standrad", "command line: Unknown runner 'standrad'. Did you mean 'standard'?"),
        ("bit=32", "command line: key 'bit' is not known. Did you mean 'bits'?"),
        ("data.wokers=1", "command line: key 'data.wokers' is not known. Did you mean 'workers'?"),
        ("loss.alhpa=1", "command line: key 'loss.alhpa' is not known. Did you mean 'alpha'?"),
        ("loss.alpha=big", "command line: loss.alpha='big' is not accepted; a number is needed."),
        ("bits=0", "command line: bits=0 is not accepted; at least 1 is needed."),
        ("bits=-8", "command line: bits=-8 is not accepted; at least 1 is needed."),
        ("seed=-1", "command line: seed=-1 is not accepted; 0 to 4294967295 is needed."),
        ("eval.every=0", "command line: eval.every=0 is not accepted; at least 1 is needed."),
        ("data.eval_batch_size=0", "command line: data.eval_batch_size=0 is not accepted; at"),
        ("optim.lr=-1", "command line: optim.lr=-1.0 is not accepted; 0 or more is needed."),
        ("optim.lr=.nan", "command line: optim.lr=nan is not accepted; a number below 2^63 is"),
        ("bits=1.5", "command line: bits=1.5 is not accepted; a whole number is needed."),
        ("bits", "'bits' is not understood: settings are given as key=value, for example bits=32."),
        ("bits=[", "command line: the value of 'bits' is no valid YAML: '['."),
        ("data=5", "command line: data=5 is not accepted; a mapping of keys is needed."),
        ("eval=null", "command line: eval=None is not accepted; a mapping of keys is needed."),
        ("loss=3", "command line: loss=3 is not accepted; a mapping of keys is needed."),
        ("optim=3", "command line: optim=3 is not accepted; a mapping of keys is needed."),
        ("dataset=3", "command line: dataset=3 is not accepted; a name is needed."),
        ("backbone=null", "command line: backbone=None is not accepted; a mapping of"),
        ("optim.groups.head=3", "command line: optim.groups.head=3 is not accepted; a mapping"),
        ("optim.groups.hed.lr=1", "command line: Unknown parameter group 'hed'. Did you"),
        ("optim.groups.head.lr=x", "command line: optim.groups.head.lr='x' is not accepted; a"),
        ("optim.momentum=1", "command line: key 'optim.momentum' is not known."),
        ("eval.at=[all,0]", "command line: eval.at=['all', 0] is not accepted; a list of 'all'"),
        ("plugins=3", "command line: plugins=3 is not accepted; a list of Python files is needed"),
        ("plugins=[none.py]", "Plugin file 'none.py' does not exist"),
        ("dataset=none.yaml", "Config file 'none.yaml' does not exist."),
    ],
)  # fmt: skip
def test_slips_on_the_command_line(words, message):
    with pytest.raises(UserError) as caught:
        compose([*BASE, words])
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "bits: 8\nloss:\n  alhpa: 1\n",
            ":3: key 'loss.alhpa' is not known. Did you mean 'alpha'?",
        ),
        (
            "loss: {name: dsph,\n  alpha: x}",
            ":2: loss.alpha='x' is not accepted; a number is needed.",
        ),
        ("\n\nbitz: 8\n", ":3: key 'bitz' is not known. Did you mean 'bits'?"),
        ("bits: 0\n", ":1: bits=0 is not accepted; at least 1 is needed."),
        ("loss:\n  name: dcmth", ":2: Unknown loss 'dcmth'. Did you mean 'dcmht'?"),
        ("a: [1\nb: 2\n", "not valid YAML"),
        ("bits: 1\nbits: 2\n", ":2: not valid YAML (found duplicate key bits)."),
        ("- 1\n", ": settings are needed as 'key: value' lines."),
        ("bits: ${nothing}", "'bits' holds a placeholder"),
    ],
)
def test_slips_in_a_file(text, message, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        compose(BASE, file)
    assert str(caught.value).startswith(str(file)) and message in str(caught.value)


def test_slips_in_a_method_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("model: image_hash\nloss:\n  name: csq\n  lamda_quant: 1\noptim: {lr: 1}\n")
    with pytest.raises(UserError) as caught:
        compose([f"method={file}", "dataset=folder", "backbone=pixels"])
    message = f"{file}:4: key 'loss.lamda_quant' is not known. Did you mean 'lambda_quant'?"
    assert str(caught.value).startswith(message)


def test_a_loss_that_does_not_fit_names_both_and_what_is_missing():
    with pytest.raises(UserError) as caught:
        compose([*BASE, "loss=dcmht"])
    assert str(caught.value).startswith(
        "Loss 'dcmht' does not fit model 'dsph': it needs image_pairs, text_pairs, and the "
        "model gives image_code, text_code;"
    )
    with pytest.raises(UserError, match="so the model's text_code would stay untrained"):
        compose([*BASE, "loss=csq"])


@pytest.mark.parametrize(
    "words",
    [
        ("dataset.split=mith", "dataset.split.seed=3"),
        ("dataset.split.seed=3", "dataset.split=mith"),
        ("dataset.split.name=mith", "dataset.split.seed=3"),
    ],
)
def test_a_component_within_a_section_keeps_its_name(words):
    config = compose(["method=dsph", "dataset=flickr25k", *words])
    assert (config.dataset.config.split.name, config.dataset.config.split.seed) == ("mith", 3)


def test_plugins(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from common.registry import LOSSES\nfrom models.base import HashLoss, Terms\n"
        "@LOSSES.register('config_test_loss', needs=('image_code',))\nclass Mine(HashLoss):\n"
        "    'Nothing.'\n    def forward(self, outputs, batch, progress): return Terms()\n"
    )
    words = ["method=csq", "dataset=folder", "loss.name=config_test_loss"]
    config = compose([*words, f"plugins=[{file}]"])
    assert config.loss.name == "config_test_loss"
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    assert config.resolved["plugins"] == [{"file": str(file), "sha256": found}]
    assert compose([*words, f"plugins={file}"]).run_name == config.run_name
    file.write_text(file.read_text() + "# changed\n")
    assert config.run_name != compose(["method=csq", "dataset=folder"]).run_name
    assert compose([*words, f"plugins={file}"]).hash != compose(words).hash


def test_where_and_how_fast_is_not_in_the_hash():
    config = compose(BASE)
    words = ("output=there", "data.workers=3", "runner.threads=2", "runner.device=cpu")
    for word in (*words, "runner.pictures=1"):
        other = compose([*BASE, word])
        assert other.run_name == config.run_name, word
        assert other.resolved != config.resolved


def test_everything_else_is_in_the_hash():
    config = compose(BASE)

    def leaves(node, *path):
        for key, value in node.items():
            yield from leaves(value, *path, key) if isinstance(value, dict) else [(*path, key)]

    # written out here: what is left out by mistake would be left out of this test as well
    left_out = {"output", "plugins", "data.workers", "runner.threads", "runner.device"}
    left_out |= {"runner.pictures"}
    paths = [p for p in leaves(config.resolved) if ".".join(p) not in left_out]
    assert {("seed",), ("bits",), ("eval", "val_size"), ("data", "captions")} <= set(paths)
    assert len(paths) > 60
    for path in paths:
        changed = yaml.safe_load(yaml.safe_dump(config.resolved))
        node = changed
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = ("was", node[path[-1]])
        assert dataclasses.replace(config, resolved=changed).hash != config.hash, path


def test_run_names():
    config = compose([*BASE, "bits=48", "seed=3"])
    assert config.run_name == f"folder-dsph-48bit-s3-{config.hash}"
    assert len(config.hash) == 8


def test_every_yaml_file_has_a_first_line_that_says_what_it_is():
    groups = ("method", "dataset", "backbone", "sweep")
    for file in (file for group in groups for file in (CONFIGS / group).glob("*.yaml")):
        text = file.read_text(encoding="utf-8")
        assert text.startswith("# ") and len(text.splitlines()) <= 40, file
