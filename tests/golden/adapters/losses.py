"""Losses of single batches: terms, totals and gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from common.pairwise import pairwise_cosine, pairwise_euclidean, share_label
from models.base import Outputs, Problem, Progress
from models.centers.hash_centers import center_distances, hadamard_centers
from models.cross_modal.dcmht import DCMHTLinearLoss, DCMHTLoss, DCMHTLossConfig
from models.cross_modal.dsph import DSPHLoss, DSPHLossConfig, code_threshold
from models.image.csq import CSQConfig, CSQLoss
from models.image.hashnet import HashNetConfig, HashNetLoss
from models.losses.pair_terms import pair_likelihood
from tests.golden.adapters._common import SHORT, compare_gradients, label_batch
from tests.golden.harness import Case, GoldenError, adapter

DRAWS = 40
PAIRS = {"it": ("img", "txt"), "ii": ("img", "img"), "tt": ("txt", "txt")}
TOOLKIT_SIMILARITY = {"euclidean": "euclidean", "cosine": "cosine_likelihood"}  # its name → ours


@adapter("dcmht_loss", "dcmht_cosine")
def dcmht_loss(case: Case) -> None:
    """The toolkit's loss: terms, quantisers, distances or bounded cosines, gradients."""
    form = TOOLKIT_SIMILARITY[case.cfg("similarity_function")]
    config = DCMHTLossConfig(
        similarity=form,
        vartheta=case.cfg("vartheta"),
        threshold=case.cfg("threshold"),
        quan_alpha=case.cfg("quan_alpha"),
    )
    label = case.tensor("in_labels")
    loss = DCMHTLoss(config, Problem(bits=case.cfg("output_dim"), n_classes=label.shape[1]))
    values = {"img": case.leaf("in_img"), "txt": case.leaf("in_txt")}
    outputs = Outputs(image_pairs=values["img"], text_pairs=values["txt"])
    terms = loss(outputs, label_batch(label), Progress())
    for pair, (a, b) in PAIRS.items():
        case.close(f"out_pos_{pair}", terms[f"pos_{pair}"])
        case.close(f"out_neg_{pair}", terms[f"neg_{pair}"])
        if form == "euclidean":
            similarity = pairwise_euclidean(values[a], values[b])
        else:
            cosine = pairwise_cosine(values[a], values[b])
            similarity = cosine.clamp(config.threshold, 1 - config.threshold)
        case.close(f"out_sim_{pair}", similarity)
    for name, value in values.items():
        case.close(f"out_quan_{name}", loss.quantization(value))
    case.equal("out_label_sim", share_label(label, label))
    case.close("out_loss", terms.total())
    compare_gradients(case, terms.total(), grad_img=values["img"], grad_txt=values["txt"])


@adapter("dchmt_orig_loss")
def dchmt_orig_loss(case: Case) -> None:
    """The first repository's loss in every recorded combination of distance and power."""
    label = case.tensor("in_labels")
    problem = Problem(bits=case.cfg("output_dim"), n_classes=label.shape[1])
    for key in case.keys("out_*_loss"):
        combination = key.removeprefix("out_").removesuffix("_loss")
        form, power = combination.split("_")
        config = DCMHTLossConfig(
            similarity=form,
            power=int(power.removeprefix("l")),
            vartheta=case.cfg("vartheta"),
            threshold=case.cfg("sim_threshold"),
            quan_alpha=0.0,  # the select mode has no quantiser
        )
        image, text = case.leaf("in_img"), case.leaf("in_txt")
        outputs = Outputs(image_pairs=image, text_pairs=text)
        terms = DCMHTLoss(config, problem)(outputs, label_batch(label), Progress())
        for name, term in terms.items():
            case.close(f"out_{combination}_{name}", term)
        case.close(key, terms.total())
        gradients = {f"{combination}_grad_img": image, f"{combination}_grad_txt": text}
        compare_gradients(case, terms.total(), **gradients)


@adapter("dchmt_orig_quant_bayes")
def dchmt_orig_quant_bayes(case: Case) -> None:
    """The linear mode's quantiser, and the pair likelihood that the first repository never uses."""
    a, b, label = case.leaf("in_a"), case.leaf("in_b"), case.tensor("in_labels")
    loss = DCMHTLinearLoss(DCMHTLossConfig(), Problem(a.shape[1], label.shape[1]))
    quantisation = loss.quantization(a)
    case.close("out_quantisation_linear_mode", quantisation)
    compare_gradients(case, quantisation, grad_quant_a=a)
    similar = share_label(label, label).to(a.dtype)
    likelihood = pair_likelihood(a @ b.T, similar).mean()
    case.close("out_bayesian_unscaled", likelihood)
    compare_gradients(case, likelihood, grad_bayes_a=a, grad_bayes_b=b)


@adapter("dsph_hyp")
def dsph_hyp(case: Case) -> None:
    """All terms with given proxies and threshold; a term that the loss leaves out counts 0."""
    config = DSPHLossConfig(alpha=case.cfg("alpha"), threshold=case.cfg("threshold"))
    loss = DSPHLoss(config, Problem(case.cfg("output_dim"), case.cfg("numclass")))
    image, text = case.leaf("in_img"), case.leaf("in_txt")
    with torch.no_grad():
        loss.proxies.copy_(case.tensor("in_proxies"))
    outputs = Outputs(image_code=image, text_code=text)
    terms = loss(outputs, label_batch(case.tensor("in_labels")), Progress())
    for modality, short in SHORT.items():
        case.close(f"out_pos_{short}", terms[f"pos_{modality}"])
        case.close(f"out_neg_{short}", terms[f"neg_{modality}"])
    for ours, recorded in (("ii", "xx"), ("tt", "yy"), ("it", "xy")):
        case.close(f"out_reg_{recorded}", terms.get(f"reg_{ours}", torch.zeros(())))
    total = terms.total()
    case.close("out_loss", total)
    compare_gradients(case, total, grad_img=image, grad_txt=text, grad_proxies=loss.proxies)


@adapter("dsph_threshold")
def dsph_threshold(case: Case) -> None:
    """The threshold for every listed pair of code length and number of classes."""
    pairs = zip(case.array("in_bits").tolist(), case.array("in_numclass").tolist(), strict=True)
    case.close("out_threshold", [code_threshold(bits, classes) for bits, classes in pairs])


def csq_terms(case: Case, code: Tensor, weight: float) -> tuple[CSQLoss, Tensor, Tensor]:
    """Return a CSQ loss with the recorded centres and tie-breaking bits, and its two terms."""
    centers, label = case.tensor("in_centers"), case.tensor("in_labels")
    loss = CSQLoss(CSQConfig(lambda_quant=weight), Problem(centers.shape[1], len(centers)))
    loss.to(centers.dtype)
    loss.centers.copy_(centers)
    loss.tie_break.copy_(case.tensor("in_random_center01") * 2 - 1)
    terms = loss(Outputs(image_code=code), label_batch(label), Progress())
    return loss, terms.center, terms.quant


@adapter("csq_dh", "csq_fire", not_read={"cfg_multilabel": "one label votes like several"})
def csq(case: Case) -> None:
    """Both released forms, which differ in λ and in cisip-FIRe's weight of the centre term.

    The raw ``out_quant`` is taken from a loss with λ = 1.
    """
    released = "lambda" if "cfg_lambda" in case else "lambda_q"
    weight = case.cfg("scale_c") if "cfg_scale_c" in case else 1.0
    code = case.leaf("in_u")
    loss, center, quant = csq_terms(case, code, case.cfg(released))
    case.close("out_center", center)
    case.close("out_quant", csq_terms(case, code, 1.0)[2])
    if "out_targets" in case:
        case.equal("out_targets", loss.targets(case.tensor("in_labels")))
    total = weight * center + quant
    case.close("out_total", total)
    compare_gradients(case, total, grad_u=code)


@adapter("csq_centers")
def csq_centers(case: Case) -> None:
    """Hadamard centres exactly; random ones by their statistics.

    The first 2K centres are rows of [H; -H] and must be equal, as must their least and mean
    distance when there are no others. Classes beyond 2K get random rows. The reference takes them
    from Python's global generator, ours from the run's own, so that their values differ. What is
    compared instead: K/2 entries of -1 in each, and that the recorded least and mean distance of
    all centres lie among those of :data:`DRAWS` sets of ours. (CSQ's own rule, a least distance
    above K/4, is no test: short codes hardly ever meet it in 20 redraws, there or here.)
    """
    classes, bits = case.cfg("n_class"), case.cfg("bit")
    recorded = case.tensor("out_centers", torch.float32)
    fixed = min(classes, 2 * bits)
    seed = case.cfg("python_random_seed")
    distances = []
    for draw in range(DRAWS if classes > fixed else 1):
        generator = torch.Generator().manual_seed(seed + draw)
        ours = hadamard_centers(classes, bits, generator)
        case.equal("out_centers", torch.cat([ours[:fixed], recorded[fixed:]]))
        distances.append(center_distances(ours))
        if not torch.equal(ours[fixed:].sum(1), recorded[fixed:].sum(1)):
            raise GoldenError(f"{case.source}: random centres are not balanced as recorded")
    smallest, mean = zip(*distances, strict=True)
    case.close("out_min", nearest_in_range(float(case.array("out_min")), smallest))
    case.close("out_mean", nearest_in_range(float(case.array("out_mean")), mean))


def nearest_in_range(recorded: float, drawn: Sequence[float]) -> float:
    """Return ``recorded`` if it lies in the range of our draws, half as wide again on each side.

    Outside of it, the end that is nearer is returned; of a single draw, the draw itself.
    """
    margin = (max(drawn) - min(drawn)) / 2
    return min(max(recorded, min(drawn) - margin), max(drawn) + margin)


@adapter(
    "hashnet_dh",
    "hashnet_fire",
    not_read={"cfg_multilabel": "similarity is a shared label in both"},
)
def hashnet(case: Case) -> None:
    """Total and gradient at the scale β that the file states (``cfg_scale`` or ``cfg_beta``).

    Our β follows from the epoch, √(⌊epoch/20⌋ + 1); the epoch is chosen to meet it, and codes are
    scaled by what is left where β² is no whole number.
    """
    beta = case.cfg("scale" if "cfg_scale" in case else "beta")
    config = HashNetConfig(alpha=case.cfg("alpha"))
    steps = max(round(beta**2), 1)
    epoch = (steps - 1) * config.epochs_per_step
    code, label = case.leaf("in_u"), case.tensor("in_labels")
    outputs = Outputs(image_code=code * (beta / math.sqrt(steps)))
    loss = HashNetLoss(config, Problem(code.shape[1], label.shape[1]))
    total = loss(outputs, label_batch(label), Progress(epoch=epoch)).total()
    case.close("out_total", total)
    compare_gradients(case, total, grad_u=code)
