"""What several adapters need: batches, backbones, names of weights, gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.batch import Batch, Features
from models.backbones.base import CachedBackbone
from models.base import HashModel
from tests.golden.harness import Case

SHORT = {"image": "img", "text": "txt"}  # modality → its name in the recordings
CLIP_BLOCK = {
    "attn.": "attention.", "ln_1.": "norm1.", "ln_2.": "norm2.", "mlp.c_fc.": "fc1.",
    "mlp.c_proj.": "fc2.",
}  # fmt: skip
"""Recorded prefixes of a transformer block of CLIP → ours in :class:`TransformerBlock`."""

ATTENTION_HEADS = {
    f"hash.{short}_hash.{theirs}": f"model.heads.{modality}.{ours}"
    for modality, short in SHORT.items()
    for theirs, ours in (("atten.", "attention."), ("norm.", "norm."), ("fc2.", "fc."))
}
"""Recorded prefixes of the toolkit's attention heads → ours below a training module."""


def label_batch(label: Tensor) -> Batch:
    """Return a batch of labels alone: all that most losses read of a batch."""
    return Batch(label=label, index=torch.arange(len(label)))


def features_batch(image: Features | Tensor, text: Features | Tensor) -> Batch:
    """Return a batch that brings features, or pooled ones alone, instead of images and texts."""
    features = [f if isinstance(f, Features) else Features(f) for f in (image, text)]
    rows = len(features[0].pooled)
    return Batch(
        label=torch.ones(rows, 1),
        index=torch.arange(rows),
        image_features=features[0],
        text_features=features[1],
    )


def features_backbone(width: int) -> CachedBackbone:
    """Return the backbone that passes such features through."""
    widths = dict.fromkeys(SHORT, width)
    return CachedBackbone(widths, widths, "golden")


def load_renamed(module: nn.Module, weights: dict[str, Tensor], names: dict[str, str]) -> None:
    """Load ``weights`` after replacing the start of each name: their prefix → ours."""
    renamed = {}
    for name, tensor in weights.items():
        prefix = next((p for p in names if name.startswith(p)), "")
        renamed[names.get(prefix, "") + name.removeprefix(prefix)] = tensor
    module.load_state_dict(renamed, strict=True)


def encode(model: HashModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the real-valued codes of images and texts, in evaluation mode."""
    model.eval()
    return model.encode(batch, "image"), model.encode(batch, "text")


def compare_gradients(case: Case, total: Tensor, **inputs: Tensor) -> None:
    """Compare d total / d input with the recorded gradient of that name (``grad_img=img``)."""
    gradients = torch.autograd.grad(total, list(inputs.values()))
    for name, gradient in zip(inputs, gradients, strict=True):
        case.close(f"out_{name}", gradient)
