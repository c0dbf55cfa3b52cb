"""A training step of MITH's head and loss: ours against one written straight from the equations.

python tests/bench/bench_mith.py     # Flickr8k's shape: 128 of 4,000 rows, 16 + 32 tokens of 512

The other has the tokens first, runs the concept encoder on padding too, builds attention weights,
takes bit after bit and row after row. Both compute on the same weights; that the losses agree is
checked. Time is that of the processor, so that other jobs on the machine do not count.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # the profiler's own remarks

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[2]))

from common.batch import Batch, Features  # noqa: E402
from common.problem import Problem  # noqa: E402
from models.backbones.base import CachedBackbone  # noqa: E402
from models.base import Progress  # noqa: E402
from models.cross_modal.mith import MITH, ConceptHeadConfig, MITHLoss, MITHLossConfig  # noqa: E402

ROWS, CLASSES, BATCH, WIDTH = 4000, 24, 128, 512
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")


def data() -> tuple[Batch, Tensor]:
    """Return a batch of features (captions of 9 to 17 tokens) and the labels of all rows."""
    generator = torch.Generator().manual_seed(0)
    label = (torch.rand(ROWS, CLASSES, generator=generator) < 0.15).float()
    index = torch.randperm(ROWS, generator=generator)[:BATCH]
    words = torch.randint(9, 18, (BATCH, 1), generator=generator)
    features = {}
    for modality, length in (("image", 16), ("text", 32)):
        tokens = torch.randn(BATCH, length, WIDTH, generator=generator)
        hidden = torch.arange(length) >= words if modality == "text" else None
        features[f"{modality}_features"] = Features(tokens.mean(1), tokens, hidden)
    return Batch(label=label[index], index=index, **features), label


def plain_encoder(model: MITH, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return refined features and concept activations."""
    encoder = model.head.encoder
    for block in encoder.blocks:
        x = x + block.fc2(F.gelu(block.fc1(block.norm(x))))
    return x, torch.tanh(encoder.concept(x))


def plain_attention(attention: torch.nn.MultiheadAttention, x: Tensor) -> Tensor:
    """Return self-attention over the first axis of [K,B,D], its weights built."""
    bits, rows, width = x.shape
    heads = attention.num_heads
    joint = F.linear(x, attention.in_proj_weight, attention.in_proj_bias)
    query, key, value = (
        part.reshape(bits, rows * heads, width // heads).transpose(0, 1)
        for part in joint.chunk(3, dim=-1)
    )
    weight = torch.softmax(query @ key.transpose(1, 2) / math.sqrt(width // heads), dim=-1)
    return attention.out_proj((weight @ value).transpose(0, 1).reshape(bits, rows, width))


def plain_side(model: MITH, batch: Batch, modality: str) -> tuple[Tensor, ...]:
    """Return h [B,K], u [B,K], r [B,D] and v [K,B,D] of one modality."""
    features = batch.features(modality)
    assert features is not None and features.tokens is not None
    refined, pooled_code = plain_encoder(model, features.pooled)
    tokens = features.tokens.permute(1, 0, 2)  # [L,B,D]
    activations = plain_encoder(model, tokens)[1].detach()
    if features.mask is not None:
        activations = activations.masked_fill(features.mask.T[:, :, None], -math.inf)
    activations = activations.masked_fill(activations <= 0, -math.inf)
    least = activations.topk(model.head.top_k, dim=-1).values[:, :, -1:]
    activations = activations.masked_fill(activations < least, -math.inf)
    weight = torch.softmax(activations, dim=0)
    weight = torch.where(weight.isnan(), 0.0, weight)
    transformer = model.head.transformers[modality]
    x = torch.einsum("lbk,lbd->kbd", weight, tokens) + transformer.position[:, None]
    for block in transformer.blocks:
        x = x + plain_attention(block.attention, block.norm1(x))
        hidden = block.fc1(block.norm2(x))
        x = x + block.fc2(hidden * torch.sigmoid(1.702 * hidden))
    bits = [layer(x[k]) for k, layer in enumerate(transformer.bit_layers)]
    vectors = F.normalize(model.projections[modality](x), dim=-1)
    return pooled_code, torch.tanh(torch.cat(bits, 1)), F.normalize(refined, dim=-1), vectors


def plain_likelihood(memory: Tensor, code: Tensor, similar: Tensor) -> Tensor:
    """Return the mean negative log-likelihood of all pairs."""
    theta = 0.5 * (memory @ code.T).clamp(-64, 64)
    return -(similar * theta - torch.log(1 + torch.exp(theta))).mean()


def plain_entropy(logits: Tensor) -> Tensor:
    """Return the cross-entropy of the diagonal, by rows and by columns."""
    diagonal = torch.arange(len(logits))
    return (F.cross_entropy(logits, diagonal) + F.cross_entropy(logits.T, diagonal)) / 2


def plain_step(model: MITH, loss: MITHLoss, batch: Batch) -> Tensor:
    """Return the total loss with the default weights."""
    (hi, ui, ri, vi), (ht, ut, rt, vt) = (plain_side(model, batch, m) for m in ("image", "text"))
    memory = {name: part.rows for name, part in loss.memories.items()}
    for name, code in zip(memory, (hi, ui, ht, ut), strict=True):
        memory[name][batch.index] = code.detach()
    similar = (loss.label @ batch.label.T > 0).float()
    intra = plain_likelihood(memory["image_token_code"], ui, similar)
    intra = intra + plain_likelihood(memory["text_token_code"], ut, similar)
    inter = plain_likelihood(memory["image_pooled_code"], ht, similar)
    inter = inter + plain_likelihood(memory["text_pooled_code"], hi, similar)
    target = (0.99 * hi + 0.01 * ui + 0.99 * ht + 0.01 * ut).detach().sign()
    quant = ((0.5 * (hi + ui) - target) ** 2).mean() + ((0.5 * (ht + ut) - target) ** 2).mean()
    rows = len(hi)
    concepts = sum(plain_entropy(vi[:, n] @ vt[:, n].T / 0.07) for n in range(rows)) / rows
    contrast = plain_entropy(ri @ rt.T / 0.07) + 0.01 * concepts
    distill = sum(
        ((h.detach() - u) ** 2).sum() + 0.1 * ((h - u.detach()) ** 2).sum()
        for h, u in ((hi, ui), (ht, ut))
    )
    return intra + 10 * inter + 8 * quant + 50 * contrast + distill / rows


def processor_seconds(step: Callable[[], Tensor]) -> float:
    """Return the processor time of one step."""
    start = time.process_time()
    step()
    return time.process_time() - start


def outside_products(step: Callable[[], Tensor]) -> float:
    """Return the share of a step's time that is no matrix product."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step()
    times = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
    return 1 - sum(times.get(name, 0.0) for name in PRODUCTS) / sum(times.values())


def main(repeats: int = 3) -> None:
    """Time both in turn, compare their losses, and print."""
    torch.set_num_threads(1)
    batch, label = data()
    widths = {"image": WIDTH, "text": WIDTH}
    for bits in (16, 64):
        torch.manual_seed(0)
        problem = Problem(bits, CLASSES, n_train=ROWS, train_labels=label)
        model = MITH(ConceptHeadConfig(), problem, CachedBackbone(widths, widths, "bench"))
        loss = MITHLoss(MITHLossConfig(), problem)

        def ours(model: MITH = model, loss: MITHLoss = loss) -> Tensor:
            total = loss(model(batch), batch, Progress()).total()
            total.backward()
            return total.detach()

        def plain(model: MITH = model, loss: MITHLoss = loss) -> Tensor:
            total = plain_step(model, loss, batch)
            total.backward()
            return total.detach()

        difference = abs(float(ours() / plain()) - 1)
        if difference > 1e-5:
            raise SystemExit(f"the losses differ by {difference:.1e}")
        pairs = [(processor_seconds(ours), processor_seconds(plain)) for _ in range(repeats)]
        fast, slow = (min(column) for column in zip(*pairs, strict=True))
        outside = [f"{outside_products(step):.0%}" for step in (ours, plain)]
        print(
            f"{bits} bits: {fast:.2f} s against {slow:.2f} s a step: {slow / fast:.2f}×; outside "
            f"matrix products {outside[0]} against {outside[1]}; losses differ by {difference:.0e}"
        )


if __name__ == "__main__":
    main()
