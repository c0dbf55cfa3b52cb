"""What a model reads, as its class says it, and the former names that plugins may still use."""

from __future__ import annotations

import pytest
import torch

from common.batch import Batch
from models.base import HashModel, InputRequest
from models.cross_modal.vtph import VTPH, VTPHConfig


class Plugin(HashModel):
    reads_others = ("second",)

    def forward(self, batch):
        raise NotImplementedError

    def encode(self, batch, modality):
        raise NotImplementedError


def test_a_request_follows_the_class():
    both = ("image", "text")
    request = VTPH.input_request(VTPHConfig(), both)
    expected = InputRequest(both, tokens=True, auxiliary=("second", "virtual"), frozen=both)
    assert request == expected


def test_former_names():
    assert Plugin.input_request(None, ("image",)).auxiliary == ("second",)
    inner = Batch(torch.ones(1, 1), torch.arange(1))
    batch = Batch(torch.ones(1, 1), torch.arange(1), auxiliary={"second": inner})
    assert batch.others is batch.auxiliary


@pytest.mark.parametrize("hook", ["others_of", "towers_of", "prepare"])
def test_a_hook_that_is_gone_is_refused(hook):
    with pytest.raises(TypeError, match=f"{hook}.*input_request"):
        type("Former", (HashModel,), {hook: classmethod(lambda cls, config: ())})
