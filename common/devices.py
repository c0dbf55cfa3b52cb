"""The device that a setting names."""

from __future__ import annotations

import torch

from utils.errors import UserError


def find_device(name: str, setting: str) -> torch.device:
    """Return the device called ``name``; ``auto`` means a GPU if there is one.

    Args:
        name: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, …
        setting: text before the name in messages: ``runner.device=`` or ``--device ``.

    Raises:
        UserError: an unknown device, or a GPU on a machine without one.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(
            f"{setting}{name} is not accepted; one of auto, cpu, cuda, cuda:N is needed."
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"{setting}{name}, but PyTorch finds no CUDA GPU; give {setting}cpu.")
    return device
