"""From a device's name in settings to a device that is there."""

from __future__ import annotations

import torch

from utils.errors import UserError


def find_device(name: str, setting: str) -> torch.device:
    """Return the device called ``name``; ``auto`` takes a GPU where there is one.

    Args:
        name: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, …
        setting: how the user gives it, up to the name: ``runner.device=`` or ``--device ``.

    Raises:
        UserError: no such device, or no GPU where one is asked for.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(name)
    except RuntimeError as error:
        raise UserError(
            f"{setting}{name} is not accepted; one of auto, cpu, cuda, cuda:N is needed."
        ) from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"{setting}{name}, but PyTorch finds no CUDA GPU; give {setting}cpu.")
    return place
