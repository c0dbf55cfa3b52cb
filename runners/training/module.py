"""Model and loss as one module, so that the parameters of both are synchronised."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from common.distributed import gather_rows, rank_and_world
from models.base import Batch, HashLoss, HashModel, MissingTensorError, Outputs, Progress, Terms
from utils.errors import UserError


class TrainingModule(nn.Module):
    """Computes the loss terms of a batch.

    Under several processes every one encodes its slice of the batch; outputs, labels and indices
    are gathered before the loss (with gradient), so that pairwise losses, proxies and memory banks
    see the whole batch and N processes compute what one would. Batch statistics inside a head
    (BatchNorm) are still those of the local slice.
    """

    def __init__(self, model: HashModel, loss: HashLoss) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, batch: Batch, progress: Progress) -> Terms:
        """Return the loss terms, computed in at least float32 whatever the model's precision.

        Raises:
            UserError: the loss reads an output that the model does not give.
        """
        return self.terms(self.outputs(batch), batch, progress)

    def outputs(self, batch: Batch) -> Outputs:
        """Return the model's outputs of a batch, in at least float32."""
        outputs = self.model(batch)
        return Outputs(**{name: _at_least_float32(value) for name, value in outputs.items()})

    def terms(self, outputs: Outputs, batch: Batch, progress: Progress) -> Terms:
        """Return the loss terms of what :meth:`outputs` returned; errors as of :meth:`forward`."""
        with torch.autocast(batch.label.device.type, enabled=False):
            if rank_and_world()[1] > 1:
                outputs = Outputs(**{name: gather_rows(value) for name, value in outputs.items()})
                batch = dataclasses.replace(
                    batch, label=gather_rows(batch.label), index=gather_rows(batch.index),
                    extras={name: gather_rows(value) for name, value in batch.extras.items()},
                )  # fmt: skip
            try:
                terms = self.loss(outputs, batch, progress)
            except MissingTensorError as error:
                raise UserError(
                    f"Loss {type(self.loss).__name__} does not fit model "
                    f"{type(self.model).__name__}: {error}; choose another loss.name or model.name."
                ) from error
            return _checked(terms, type(self.loss).__name__)


def _checked(terms: Terms, loss: str) -> Terms:
    for name, term in terms.items():
        if not isinstance(term, Tensor) or term.numel() != 1:
            value = list(term.shape) if isinstance(term, Tensor) else type(term).__name__
            raise UserError(
                f"Term '{name}' of loss {loss} is {value}; a tensor holding one number is needed."
            )
    return terms


def _at_least_float32(value: Tensor) -> Tensor:
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
