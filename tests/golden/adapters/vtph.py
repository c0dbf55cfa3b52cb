"""VTPH: prompts, losses, the whole method, and its optimiser."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.batch import Batch, Features
from common.codes import sign
from common.config.run_config import Component
from common.optimizers import BertAdamConfig
from common.pairwise import share_label
from common.registry import OPTIMIZERS, SCHEDULERS
from common.schedules import WarmupConfig
from models.base import Outputs, Problem, Progress, Terms
from models.cross_modal.vtph import (
    VTPH,
    Prompts,
    VTPHConfig,
    VTPHLoss,
    VTPHLossConfig,
    jeffreys_mean,
)
from tests.golden.adapters._common import CLIP_BLOCK, SHORT, features_backbone, load_renamed
from tests.golden.adapters.mith import MEMORIES, load_positions
from tests.golden.adapters.mith import names_of as head_names
from tests.golden.harness import Case, adapter

RTOL = 1e-9  # as the recordings' README asks in float64
TERMS = {
    "tokens_intra_likelihood": "intra",
    "cls_inter_likelihood": "inter",
    "quantization": "quant",
    "infoNCE": "contrast",
    "distillation": "distill",
    "triplet": "triplet",
}  # recorded name → ours


def prompt_names(layers: int) -> dict[str, str]:
    """Return the recorded prefixes of the prompting module → ours."""
    names = {"vap.fc.0.": "gate.", "tap.mlp.0.": "adapter.down.", "tap.mlp.3.": "adapter.up."}
    for modality in ("image", "text"):
        for i in range(layers):
            for part, own in CLIP_BLOCK.items():
                theirs = f"te_{modality[0]}.resblocks.{i}.{part}"
                names[theirs] = f"transformers.{modality}.{i}.{own}"
    return names


def renamed(name: str, names: dict[str, str]) -> str:
    """Return our name of a recorded parameter."""
    prefix = next(p for p in names if name.startswith(p))
    return names[prefix] + name.removeprefix(prefix)


def batch_first(tokens: Tensor) -> Tensor:
    """Return tokens [B,L,D] of recorded ones [L,B,D], or the other way round."""
    return tokens.transpose(0, 1)


@adapter("vtph_bertadam")
def vtph_bertadam(case: Case) -> None:
    """The parameter after every step of warm-up and cosine."""
    parameter = nn.Parameter(case.tensor("in_p0"))
    optim = Component(
        OPTIMIZERS.get("bertadam"),
        BertAdamConfig(
            beta1=case.cfg("b1"), beta2=case.cfg("b2"), eps=case.cfg("eps"),
            weight_decay=case.cfg("weight_decay"), max_grad_norm=case.cfg("max_grad_norm"),
        ),
    )  # fmt: skip
    rate, warmup = case.cfg("lr"), WarmupConfig(case.cfg("warmup"))
    groups = [{"params": [parameter], "lr": rate, "name": "p"}]
    optimizer = optim.entry.target(groups, rate, optim.config)
    factor = SCHEDULERS.get("warmup_cosine").target
    visited = []
    for step, gradient in enumerate(case.tensor("in_grads")):
        parameter.grad = gradient
        optimizer.param_groups[0]["lr"] = rate * factor(warmup, step, case.cfg("t_total"), 0, 1)
        optimizer.step()
        visited.append(parameter.detach().clone())
    case.close("out_params", torch.stack(visited), RTOL)


@adapter("vtph_prompting")
def vtph_prompting(case: Case) -> None:
    """The gate, the adapter and both transformers in evaluation mode, and all gradients."""
    width, layers = case.cfg("dim"), case.cfg("layers")
    hidden = case.array("in_param__tap.mlp.0.bias").shape[0]
    config = VTPHConfig(
        prompt_layers=layers, prompt_heads=case.cfg("heads"), adapter_reduction=width // hidden
    )
    prompts = Prompts(width, config).double().eval()
    for layer in prompts.modules():
        if isinstance(layer, nn.LayerNorm):
            case.agree("eps_layernorm", layer.eps)
    names = prompt_names(layers)
    load_renamed(prompts, case.weights("in_param__"), names)
    inputs = {
        name: case.leaf(f"in_{name}")
        for name in ("img_tokens", "img_cls", "txt_tokens", "txt_eos", "cap_tokens")
    }
    image = Features(inputs["img_cls"], batch_first(inputs["img_tokens"]))
    text = Features(inputs["txt_eos"], batch_first(inputs["txt_tokens"]))
    caption = Features(inputs["txt_eos"], batch_first(inputs["cap_tokens"]))  # its pooled is unread
    gate = prompts.channel_gate(image)
    case.close("out_vap_weight", gate, RTOL)
    case.close("out_vap_txt_tokens", inputs["txt_tokens"] * gate, RTOL)
    prompted = prompts.adapter(text.pooled)
    found: dict[str, Tensor] = {"txt_eos_prompted": prompted}
    for short, features in (
        ("img", prompts.image(image)),
        ("txt", prompts.text(prompted, text, image, caption)),
    ):
        assert features.tokens is not None
        pooled = "cls" if short == "img" else "eos"
        found[f"{short}_tokens"] = batch_first(features.tokens)
        found[f"{short}_{pooled}"] = features.pooled
    for name, value in found.items():
        case.close(f"out_full_{name}", value, RTOL)
    total = torch.stack([(case.tensor(f"in_cotangent_{n}") * v).sum() for n, v in found.items()])
    case.close("out_scalar", total.sum(), RTOL)
    own = dict(prompts.named_parameters())
    wanted = inputs | {
        f"param__{name}": own[renamed(name, names)] for name in case.weights("in_param__")
    }
    gradients = torch.autograd.grad(total.sum(), list(wanted.values()))
    for name, gradient in zip(wanted, gradients, strict=True):
        case.close(f"out_grad__{name}", gradient, RTOL)
    alone = prompts.text(prompted, text)
    assert alone.tokens is not None
    case.close("out_query_txt_tokens", batch_first(alone.tokens), RTOL)
    case.close("out_query_txt_eos", alone.pooled, RTOL)
    case.close("out_query_img_tokens", found["img_tokens"], RTOL)
    case.close("out_query_img_cls", found["img_cls"], RTOL)


def loss_of(case: Case, bits: int, **keys: float) -> VTPHLoss:
    """Return the loss with the recorded weights and memories."""
    config = VTPHLossConfig(
        lambda_inter=case.cfg("hyper_alpha"),
        lambda_quant=case.cfg("hyper_beta"),
        lambda_contrast=case.cfg("hyper_zeta"),
        pooled_share=case.cfg("hyper_lambda"),
        gamma=case.cfg("hyper_gamma"),
        **keys,
    )
    label = case.tensor("in_train_labels")
    problem = Problem(bits, label.shape[1], n_train=len(label), train_labels=label)
    loss = VTPHLoss(config, problem).double()
    loss.label = label.double()
    for theirs, ours in MEMORIES.items():
        loss.memories[ours].rows.copy_(case.tensor(f"in_{theirs}_init"))
    return loss


def compare_terms(case: Case, loss: VTPHLoss, outputs: Outputs, rtol: float) -> Terms:
    """Compare the target, every weighted term and their sum."""
    index = case.tensor("in_index")
    terms = loss(outputs, Batch(label=loss.label[index], index=index), Progress())
    for theirs, ours in TERMS.items():
        case.close(f"out_loss_{theirs}", terms[ours], rtol)
    assert set(terms) == set(TERMS.values())
    case.close("out_loss_total", terms.total(), rtol)
    case.equal("out_B", loss.target(outputs))
    return terms


@adapter("vtph_losses")
def vtph_losses(case: Case) -> None:
    """Every term, the affinity, the temperatures, and each term's gradients."""
    inputs, values = {}, {}
    for modality, short in SHORT.items():
        for name, ours in (
            (f"{short}_cls_hash", "pooled_code"),
            (f"{short}_tokens_hash", "token_code"),
            (f"res_{short}_cls", "pooled"),
        ):
            values[f"{modality}_{ours}"] = inputs[name] = case.leaf(f"in_{name}")
    inputs["txt_eos_prompted"] = case.leaf("in_txt_eos_prompted")
    text, caption = case.tensor("in_txt_eos"), case.tensor("in_cap_eos")
    outputs = Outputs(
        values, text_feature=text, second_feature=caption, text_prompted=inputs["txt_eos_prompted"]
    )
    loss = loss_of(case, outputs.image_pooled_code.shape[1], temperature=case.cfg("tau0"))
    case.close("out_affinity", jeffreys_mean(text, caption), RTOL)
    case.close("out_temperature", loss.temperatures(text, caption), RTOL)
    case.equal("out_label_sim", share_label(loss.label, loss.label[case.tensor("in_index")]))
    terms = compare_terms(case, loss, outputs, RTOL)
    for key in case.keys("out_grad_*"):
        term, name = key.removeprefix("out_grad_").split("__")
        value = terms.total() if term == "total" else terms[TERMS[term]]
        (gradient,) = torch.autograd.grad(value, inputs[name], retain_graph=True)
        case.close(key, gradient, RTOL)


def whole(case: Case) -> tuple[VTPH, dict[str, str]]:
    """Return the model with the recorded parameters, and their names → ours."""
    width, layers = case.cfg("dim"), case.cfg("transformer_layers")
    prompt_layers = len(case.keys("in_param_vtp__te_i.resblocks.*.ln_1.bias"))
    config = VTPHConfig(
        top_k=case.cfg("topk"),
        mlp_layers=case.cfg("res_mlp_layers"),
        transformer_layers=layers,
        attention_heads=case.cfg("heads_lct"),
        prompt_layers=prompt_layers,
        prompt_heads=case.cfg("heads_vtp"),
        adapter_reduction=width // case.array("in_param_vtp__tap.mlp.0.bias").shape[0],
    )
    problem = Problem(bits=case.cfg("k"), n_classes=case.array("in_train_labels").shape[1])
    model = VTPH(config, problem, features_backbone(width)).double().eval()
    names = {
        f"vtp__{theirs}": f"prompts.{ours}" for theirs, ours in prompt_names(prompt_layers).items()
    }
    for theirs, ours in head_names(config.mlp_layers, layers).items():
        if "concept_proj" not in theirs:  # trained by nothing, so not in our model
            names[f"hash__{theirs}"] = ours
    weights = case.weights("in_param_")
    own = {n: w for n, w in weights.items() if any(n.startswith(prefix) for prefix in names)}
    load_renamed(model, own, names)
    load_positions(case, model, "in_param_hash__")
    return model, {name: renamed(name, names) for name in own}


def features_of(case: Case) -> Batch:
    """Return the recorded features, those of the captions as second texts."""
    index = case.tensor("in_index")
    label = case.tensor("in_train_labels")[index]
    mask = case.tensor("in_key_padding_mask")
    given = {
        name: Features(
            case.tensor(f"in_{pooled}"), batch_first(case.tensor(f"in_{tokens}")), hidden
        )
        for name, pooled, tokens, hidden in (
            ("image", "img_cls", "img_tokens", None),
            ("text", "txt_eos", "txt_tokens", mask),
            ("second", "cap_eos", "cap_tokens", None),
        )
    }
    return Batch(
        label, index, image_features=given["image"], text_features=given["text"],
        auxiliary={"second": Batch(label, index, text_features=given["second"])},
    )  # fmt: skip


@adapter("vtph_e2e")
def vtph_e2e(case: Case) -> None:
    """Prompts, heads, losses, codes and gradients; captions are the second texts.

    The reference's concept vectors are projected by two layers that nothing trains; they are
    applied here, since our model has none.
    """
    model, parameters = whole(case)
    batch = features_of(case)
    outputs = model(batch)
    for modality, short in SHORT.items():
        case.close(f"out_{short}_cls_hash", outputs[f"{modality}_pooled_code"], RTOL)
        case.close(f"out_{short}_tokens_hash", outputs[f"{modality}_token_code"], RTOL)
        case.close(f"out_res_{short}_cls", outputs[f"{modality}_pooled"], RTOL)
        case.equal(f"out_code_{short}", sign(model.encode(batch, modality)))
        compare_concepts(case, model, batch, modality)
    terms = compare_terms(case, loss_of(case, model.problem.bits), outputs, RTOL)
    own = dict(model.named_parameters())
    gradients = torch.autograd.grad(terms.total(), [own[ours] for ours in parameters.values()])
    for name, gradient in zip(parameters, gradients, strict=True):
        case.close(f"out_gradnorm__{name}", gradient.norm(), RTOL)
        if f"out_grad__{name}" in case:
            case.close(f"out_grad__{name}", gradient, RTOL)


def compare_concepts(case: Case, model: VTPH, batch: Batch, modality: str) -> None:
    """Compare the concept vectors, through the reference's projection."""
    short, prompts = SHORT[modality], model.prompts
    assert batch.image_features is not None and batch.text_features is not None
    if modality == "image":
        encoded = prompts.image(batch.image_features)
    else:
        prompted = prompts.adapter(batch.text_features.pooled)
        second = batch.auxiliary["second"].text_features
        encoded = prompts.text(prompted, batch.text_features, batch.image_features, second)
    weight, bias = (
        case.tensor(f"in_param_hash__{short}_concept_proj.{n}") for n in ("weight", "bias")
    )
    concepts = F.normalize(F.linear(model.head(encoded, modality).concepts, weight, bias), dim=-1)
    case.close(f"out_trans_tokens_{short[0]}", batch_first(concepts), RTOL)
