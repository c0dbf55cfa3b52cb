"""The options of ``main.py generate``, checked as far as possible without loading a model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.errors import UserError

if TYPE_CHECKING:
    import torch


def option(default: Any = dataclasses.MISSING, **argument: Any) -> Any:
    """Return a field that the command line fills: ``argument`` is what ``add_argument`` takes."""
    if default is not dataclasses.MISSING:
        argument["default"] = default
    return dataclasses.field(default=default, metadata=argument)


@dataclasses.dataclass(frozen=True)
class Options:
    """One ``generate`` command: a field for each option, in the order of ``--help``.

    Without ``model`` no images are generated, without ``captioner`` no captions. Images start from
    noise, or under ``condition`` from a training image of their class (image-to-image) or its
    mosaic of 8×8 colors (through a T2I-Adapter). Of several ``count`` the later wins.
    """

    dataset: str
    method: str = option(required=True, metavar="vtph|pzsh", help="whose needs")
    out: Path = option(
        type=Path, required=True, metavar="DIR", help="folder to fill; goes on there"
    )
    settings: Sequence[str] = ()
    model: str | None = option(
        None,
        metavar="PATH|TAG",
        help="diffusers folder, .safetensors, .ckpt or hub tag; creatures for creatures_zeroshot",
    )
    model_config: str | None = option(
        None, metavar="DIR", help="diffusers folder, of a single file"
    )
    captioner: str | None = option(None, metavar="PATH|TAG", help="BLIP folder or hub tag")
    prompt: str | None = option(None, help="template: <text>, or <label> <attributes> <caption>")
    negative_prompt: str = option("", metavar="TEXT")
    count: Sequence[str] | None = option(
        None, action="append", metavar="N|seen=each|unseen=N|CLASS=N"
    )
    features: bool = option(
        False, action="store_true", help="encode the pictures too, with backbone=…"
    )
    condition: str = option("none", choices=("none", "image", "mosaic"))
    strength: float = option(0.8, type=float, help="of --condition image, 0..1")
    adapter: str | None = option(
        None, metavar="PATH|TAG", help="T2I-Adapter, of --condition mosaic"
    )
    steps: int = option(50, type=int, help="denoising steps")
    guidance: float = option(7.5, type=float, help="scale of guidance")
    size: int | None = option(
        None, type=int, metavar="PX", help="side; the model's own if left out"
    )
    seed: int = option(42, type=int, help="of the pictures")
    limit: int | None = option(None, type=int, metavar="N", help="first N rows; N per class")
    batch_size: int | None = option(None, type=int, metavar="N", help="halved when memory runs out")
    device: str = option("auto")
    dtype: str = option("auto", choices=("auto", "float32", "float16", "bfloat16"))
    dry_run: bool = option(False, action="store_true", help="say what would be made, and stop")

    def check(self) -> None:
        """Refuse numbers that no model accepts, and options that need each other.

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
        if (self.condition == "mosaic") != (self.adapter is not None):
            raise UserError(
                "--condition mosaic and --adapter PATH (a T2I-Adapter for colours) need each other."
            )

    def torch_device(self) -> torch.device:
        """Return the device of ``--device``.

        Raises:
            UserError: no such device.
        """
        from common.devices import find_device

        return find_device(self.device, "--device ")

    def number_type(self) -> torch.dtype:
        """Return the number type of ``--dtype``; ``auto`` is float16 on a GPU, else float32."""
        import torch

        if self.dtype == "auto":
            return torch.float16 if self.torch_device().type == "cuda" else torch.float32
        return getattr(torch, self.dtype)
