"""MITH: position code, token aggregation, head, loss and a training run."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from common.batch import Batch, Features
from common.codes import sign
from models.base import Outputs, Problem, Progress, Terms
from models.cross_modal.mith import MITH, MITHLoss, MITHLossConfig
from models.layers.concept_head import (
    ConceptHeadConfig,
    concept_weights,
    gather_concepts,
    position_code,
)
from models.losses.concept_loss import match_entropy
from models.losses.memory_bank import memory_likelihood
from tests.golden.adapters._common import (
    CLIP_BLOCK,
    SHORT,
    compare_gradients,
    features_backbone,
    features_batch,
    load_renamed,
)
from tests.golden.harness import RTOL_HEAD, Case, adapter
from tests.golden.replay import (
    Setup,
    clip_groups,
    clip_of,
    problem_of,
    rows_batch,
    trajectory,
)

MEMORIES = {
    f"{short}_buffer_{theirs}": f"{modality}_{ours}_code"
    for modality, short in SHORT.items()
    for theirs, ours in (("cls", "pooled"), ("tokens", "token"))
}  # recorded name → ours


def names_of(mlp_layers: int, layers: int) -> dict[str, str]:
    """Return the head's recorded prefixes → ours, below the model."""
    names = {"gcl_i.common_concept_embedding.": "head.encoder.concept."}
    for i in range(mlp_layers):
        names[f"gcl_i.mlp.lns.{i}."] = f"head.encoder.blocks.{i}.norm."
        names[f"gcl_i.mlp.mlps.{i}.0."] = f"head.encoder.blocks.{i}.fc1."
        names[f"gcl_i.mlp.mlps.{i}.3."] = f"head.encoder.blocks.{i}.fc2."
    for modality, short in SHORT.items():
        names[f"{short}_concept_proj."] = f"projections.{modality}."
        theirs, ours = f"lct_{short[0]}.", f"head.transformers.{modality}."
        names[f"{theirs}hashing.fc_list."] = f"{ours}bit_layers."
        for i in range(layers):
            for part, own in CLIP_BLOCK.items():
                names[f"{theirs}transformer.resblocks.{i}.{part}"] = f"{ours}blocks.{i}.{own}"
    return names


def load_positions(case: Case, model: MITH, prefix: str) -> None:
    """Take over the recorded position codes: the reference computed them in float32."""
    for modality, short in SHORT.items():
        recorded = case.tensor(f"{prefix}lct_{short[0]}.position.pe")[:, 0]
        position = model.head.transformers[modality].position
        torch.testing.assert_close(position, recorded, rtol=0, atol=1e-6)
        position.copy_(recorded)


def config_of(case: Case, *, top_k: str, heads: str) -> ConceptHeadConfig:
    """Return the head's settings; two of the files' names for them differ."""
    return ConceptHeadConfig(
        top_k=case.cfg(top_k),
        mlp_layers=case.cfg("res_mlp_layers"),
        transformer_layers=case.cfg("transformer_layers"),
        attention_heads=case.cfg(heads),
    )


def loss_config_of(case: Case) -> MITHLossConfig:
    """Return the loss's weights."""
    return MITHLossConfig(
        lambda_intra=case.cfg("hyper_tokens_intra"),
        lambda_inter=case.cfg("hyper_cls_inter"),
        lambda_quant=case.cfg("hyper_quan"),
        lambda_contrast=case.cfg("hyper_info_nce"),
        lambda_distill=case.cfg("hyper_distill"),
        pooled_share=case.cfg("hyper_lambda"),
        alpha=case.cfg("hyper_alpha"),
        temperature=case.cfg("temperature"),
    )


def load_memories(case: Case, loss: MITHLoss, prefix: str) -> None:
    """Fill the memories with the recorded ones."""
    for theirs, ours in MEMORIES.items():
        loss.memories[ours].rows.copy_(case.tensor(f"{prefix}{theirs}"))


def recorded_terms(terms: Terms, outputs: Outputs | None = None) -> Mapping[str, Tensor]:
    """Return our terms under the recorded names."""
    return {
        "tokens_intra_likelihood": terms.intra,
        "cls_inter_likelihood": terms.inter,
        "quantization": terms.quant,
        "infoNCE": terms.contrast,
        "distillation": terms.distill,
    }


@adapter("mith_posenc")
def mith_posenc(case: Case) -> None:
    """The position code of K concepts, added to zeros."""
    code = position_code(case.cfg("K"), case.cfg("D"))
    case.close("out_pe", case.tensor("in_zero")[0] + code)


@adapter("mith_lta")
def mith_lta(case: Case) -> None:
    """Which tokens take part in which concepts, and the concepts' sums, with and without a mask."""
    tokens = case.tensor("in_x").transpose(0, 1)  # [B,L,D]
    activations = case.tensor("in_concept").transpose(0, 1)  # [B,L,K]
    hidden = case.tensor("in_key_padding_mask")[..., None]
    for seen, merged, pseudo in (
        (activations.masked_fill(hidden, 0), "out_merged_KND", "out_pseudo_LNK"),
        (activations, "out_merged_nomask", "out_pseudo_nomask"),
    ):
        weight = concept_weights(seen, case.cfg("top_k"))
        case.equal(pseudo, (weight > 0).transpose(0, 1))
        case.close(merged, gather_concepts(tokens, weight).transpose(0, 1))


@adapter("mith_head")
def mith_head(case: Case) -> None:
    """The whole head in evaluation mode, from recorded features."""
    config = config_of(case, top_k="top_k", heads="heads")
    pooled = {"image": case.tensor("in_img_cls"), "text": case.tensor("in_txt_eos")}
    problem = Problem(bits=case.cfg("k_bits"), n_classes=1)
    model = MITH(config, problem, features_backbone(pooled["image"].shape[1])).eval()
    weights = {k: v for k, v in case.weights("w_").items() if not k.endswith("position.pe")}
    load_renamed(model, weights, names_of(config.mlp_layers, config.transformer_layers))
    load_positions(case, model, "w_")
    tokens = {m: case.tensor(f"in_{s}_tokens_LND").transpose(0, 1) for m, s in SHORT.items()}
    batch = features_batch(
        Features(pooled["image"], tokens["image"]),
        Features(pooled["text"], tokens["text"], case.tensor("in_key_padding_mask")),
    )
    outputs = model(batch)
    for modality, short in SHORT.items():
        case.close(f"out_{short}_cls_hash", outputs[f"{modality}_pooled_code"], RTOL_HEAD)
        case.close(f"out_{short}_tokens_hash", outputs[f"{modality}_token_code"], RTOL_HEAD)
        case.close(f"out_res_{short}_cls", outputs[f"{modality}_pooled"], RTOL_HEAD)
        concepts = outputs[f"{modality}_concepts"].transpose(0, 1)
        case.close(f"out_trans_tokens_{short[0]}", concepts, RTOL_HEAD)
        case.equal(f"out_{short}_code", sign(outputs[f"{modality}_code"]))
        assert torch.equal(outputs[f"{modality}_code"], model.encode(batch, modality))


@adapter("mith_loss")
def mith_loss(case: Case) -> None:
    """Every term with its weight and without, the memories, all gradients."""
    label, index = case.tensor("in_train_labels"), case.tensor("in_index")
    inputs, values = {}, {}
    for modality, short in SHORT.items():
        for name, ours in (
            (f"{short}_cls_hash", "pooled_code"),
            (f"{short}_tokens_hash", "token_code"),
            (f"res_{short}_cls", "pooled"),
            (f"trans_tokens_{short[0]}", "concepts"),
        ):
            inputs[name] = case.leaf(f"in_{name}")
            batch_first = inputs[name].transpose(0, 1) if ours == "concepts" else inputs[name]
            values[f"{modality}_{ours}"] = batch_first
    outputs = Outputs(values)
    bits = outputs.image_pooled_code.shape[1]
    problem = Problem(bits, label.shape[1], n_train=len(label), train_labels=label)
    loss = MITHLoss(loss_config_of(case), problem).to(label.dtype)
    load_memories(case, loss, "in_before_")
    batch = Batch(label=label[index], index=index)
    terms = loss(outputs, batch, Progress())
    for name, term in recorded_terms(terms).items():
        case.close(f"out_term_{name}", term)
    case.close("out_loss", terms.total())
    case.equal("out_B", loss.target(outputs))
    for theirs, ours in MEMORIES.items():
        case.equal(f"out_after_{theirs}", loss.memories[ours].rows)
    similar = (label @ batch.label.T > 0).to(label.dtype)
    for name, memory, code in (
        ("intra_i", "image_token_code", "image_token_code"),
        ("intra_t", "text_token_code", "text_token_code"),
        ("inter_i2t", "image_pooled_code", "text_pooled_code"),
        ("inter_t2i", "text_pooled_code", "image_pooled_code"),
    ):
        case.close(
            f"out_{name}", memory_likelihood(loss.memories[memory].rows, outputs[code], similar)
        )
    temperature = case.cfg("temperature")
    for name, part in (("cls", "pooled"), ("tokens", "concepts")):
        cosine = outputs[f"image_{part}"] @ outputs[f"text_{part}"].mT
        case.close(f"out_nce_{name}", match_entropy(cosine / temperature))
    compare_gradients(case, terms.total(), **{f"grad_{name}": x for name, x in inputs.items()})


@trajectory("traj_mith")
def mith(case: Case, dtype: torch.dtype) -> Setup:
    """MITH with its memory banks; padding is hidden inside the text transformer too.

    The position codes are the recorded ones.
    """
    problem = problem_of(case)
    config = config_of(case, top_k="top_k_label", heads="lct_heads")
    backbone = clip_of(
        case, "w_clip.", dtype, text_padding_mask=True, eos_id=case.cfg("eos_id_hidden")
    )
    model = MITH(config, problem, backbone)
    load_positions(case, model, "w_hash.")
    loss = MITHLoss(loss_config_of(case), problem)
    load_memories(case, loss, "in_memory_")

    def output(modality: str, part: str) -> Tensor:
        rows = np.arange(len(case.array("in_labels")))
        return model(rows_batch(case, rows, loss.label.dtype))[f"{modality}_{part}_code"]

    final = {
        f"memory_{theirs}": lambda ours=ours: loss.memories[ours].rows
        for theirs, ours in MEMORIES.items()
    }
    for modality, short in SHORT.items():
        for theirs, ours in (("cls", "pooled"), ("tokens", "token")):
            final[f"real_{short}_{theirs}_hash"] = lambda m=modality, part=ours: output(m, part)
    names = names_of(config.mlp_layers, config.transformer_layers)
    return Setup(
        model=model,
        loss=loss,
        backbone="clip.",
        names={f"hash.{theirs}": f"model.{ours}" for theirs, ours in names.items()},
        columns={"clip.": "backbone", "hash.": "head"},
        optim=clip_groups(case),
        terms=recorded_terms,
        real=lambda batch, modality: 2 * model.encode(batch, modality),  # h + u, not half of it
        final=final,
        absent=(".logit_scale", ".position.pe"),
        constants=("loss.memories.",),
    )
