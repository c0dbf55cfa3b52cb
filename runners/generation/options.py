"""The options of ``main.py generate``, checked as far as possible without loading a model."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Literal, get_args

import torch

from common.devices import find_device
from utils.errors import UserError, unknown_name

DTYPES = ("auto", "float32", "float16", "bfloat16")
Condition = Literal["none", "image", "mosaic"]


@dataclasses.dataclass(frozen=True)
class Options:
    """One ``generate`` command.

    Attributes:
        dataset: name or YAML file of the dataset.
        method: that the output is for.
        out: the folder that is filled.
        settings: ``key=value`` words, as those of ``train``.
        model: diffusers folder, ``.safetensors`` or ``.ckpt`` file, tag on the model hub, or
            ``creatures``; None generates no images.
        model_config: diffusers folder with the settings of a single file; None takes the hub's.
        captioner: BLIP folder or tag; None generates no captions.
        prompt: template; None takes the method's.
        negative_prompt: what images should not show.
        steps: denoising steps.
        guidance: scale of classifier-free guidance.
        size: side of the images, px; None takes the model's.
        seed: of the images.
        count: images per class: ``100``, ``seen=5``, ``unseen=100``, ``<class>=40``, and
            ``seen=each``, one for each training row of the class; later words win.
        condition: what images start from: noise, a training image of the class
            (image-to-image), or its mosaic of 8×8 colors (through a T2I-Adapter).
        strength: of ``condition=image``, 0..1: how much of the image is generated anew.
        adapter: T2I-Adapter for colors, folder or tag; needed by ``condition=mosaic``.
        features: also encode the images, by the backbone of the settings.
        limit: maximum of rows (or images per class) of each part; None for all.
        batch_size: at first; halved when memory runs out. None chooses by device.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``.
        dtype: one of :data:`DTYPES`; ``auto`` is float16 on a GPU and float32 elsewhere.
        dry_run: only print what would be done.
    """

    dataset: str
    method: str
    out: Path
    settings: tuple[str, ...] = ()
    model: str | None = None
    model_config: str | None = None
    captioner: str | None = None
    prompt: str | None = None
    negative_prompt: str = ""
    steps: int = 50
    guidance: float = 7.5
    size: int | None = None
    seed: int = 42
    count: tuple[str, ...] = ()
    condition: Condition = "none"
    strength: float = 0.8
    adapter: str | None = None
    features: bool = False
    limit: int | None = None
    batch_size: int | None = None
    device: str = "auto"
    dtype: str = "auto"
    dry_run: bool = False

    def check(self) -> None:
        """Refuse numbers and names that no model accepts.

        Raises:
            UserError: names the option and what is accepted.
        """
        for name, value in {
            "steps": self.steps, "limit": self.limit, "batch-size": self.batch_size,
        }.items():  # fmt: skip
            if value is not None and value < 1:
                raise UserError(f"--{name} {value} is not accepted; at least 1 is needed.")
        if self.size is not None and (self.size < 8 or self.size % 8):
            raise UserError(f"--size {self.size} is not accepted; a multiple of 8 is needed.")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"--seed {self.seed} is not accepted; 0 to {2**32 - 1} is needed.")
        if not 0 <= self.guidance < math.inf:
            raise UserError(f"--guidance {self.guidance} is not accepted; 0 or more is needed.")
        if not 0 < self.strength <= 1 or int(self.steps * self.strength) < 1:
            raise UserError(
                f"--strength {self.strength} is not accepted; a number in 0..1 is needed that "
                f"leaves at least one of the {self.steps} --steps."
            )
        if self.dtype not in DTYPES:
            raise unknown_name("--dtype", self.dtype, DTYPES)
        if self.condition not in get_args(Condition):
            raise unknown_name("--condition", self.condition, get_args(Condition))
        if (self.condition == "mosaic") != (self.adapter is not None):
            raise UserError(
                "--condition mosaic and --adapter PATH (a T2I-Adapter for colours) need each other."
            )

    def torch_device(self) -> torch.device:
        """Return the device of ``--device``.

        Raises:
            UserError: no such device.
        """
        return find_device(self.device, "--device ")

    def number_type(self) -> torch.dtype:
        """Return the number type of ``--dtype``."""
        if self.dtype == "auto":
            return torch.float16 if self.torch_device().type == "cuda" else torch.float32
        return getattr(torch, self.dtype)
