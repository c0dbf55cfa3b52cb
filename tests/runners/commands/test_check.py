"""``main.py check`` on methods with a fault: each is named, and the exit code is 1."""

import pytest

import main
from runners.commands import check
from tests.docs.test_guides import registered_as_before

MODEL = """
import torch
from torch import nn
from common.registry import MODELS
from models.base import HashModel, Outputs

@MODELS.register("check_test_model", provides=("image_code",))
class OwnModel(HashModel):
    "A hash layer."
    modalities = ("image",)
    def __init__(self, config, problem, backbone):
        super().__init__(config, problem, backbone)
        self.hash = nn.Linear(backbone.widths["image"], problem.bits)
        {extra}
    def forward(self, batch):
        return Outputs(image_code=self.encode(batch, "image"))
    def encode(self, batch, modality):
        code = self.hash(self.backbone(batch, modality).pooled)
        return {code}
"""


@pytest.mark.parametrize(
    ("extra", "code", "problem"),
    [
        ("pass", "code", "sound"),
        (
            "self.turn = torch.randn(problem.bits, problem.bits)",
            "code @ self.turn",
            "survives_saving: a reloaded model gives other image codes: something is not in its "
            "state",
        ),
        ("pass", "code[:, 1:]", "trains: image codes are [48, 15], not [48,16]"),
        ("pass", "(code - code.mean(0)) / code.std(0, correction=0)", "takes_one_row: "),
        ("pass", "code / 0", "ValueError: loss term "),
        ("pass", "code.detach()", "RuntimeError: "),
    ],
)
def test_a_fault_is_named(extra, code, problem, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(check, "CASES", check.CASES[:1])
    file = tmp_path / "mine.py"
    file.write_text(MODEL.replace("{extra}", extra).replace("{code}", code), encoding="utf-8")
    with registered_as_before():
        exit_code = main.main(["check", str(file), "loss.name=dpsh"])
    line = capsys.readouterr().out.splitlines()[1]
    assert line.startswith(f"   16 bits, single-label   {problem}")
    assert exit_code == (problem != "sound")
