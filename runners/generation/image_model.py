"""Images from texts by any text-to-image pipeline of diffusers (Rombach et al., CVPR 2022).

Every image has its own random generator on the CPU, seeded from (seed, row or class, number). So
an image depends neither on the batch size nor on the device's random numbers nor on where an
interrupted run resumed. (Another batch size or device may round differently: a pixel then differs
by about one step.)

An image may also start from another one: by image-to-image (Meng et al., ICLR 2022), or from its
colors through a T2I-Adapter (Mou et al., AAAI 2024). Prompts longer than the model's text encoder
takes are truncated. Safety checkers are off: they replace suspected images by black ones, and a
black image is no pseudo-image of its class.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from runners.generation import model_files as weights
from runners.generation.batches import in_batches
from runners.generation.options import Options
from utils.errors import UserError

KIND = (
    "a text-to-image model (a diffusers folder with model_index.json, .safetensors, .ckpt or tag)"
)
ADAPTER_KIND = "a T2I-Adapter (a folder with config.json, or tag)"
MARKER = "model_index.json"
_UNKNOWN_SIDE = 1024  # px; an estimate where only the loaded model knows it

ImageKey = tuple[str, str | int, int]


@dataclasses.dataclass(frozen=True)
class ImageRequest:
    """One image to generate.

    Attributes:
        key: ``("row", 7, 0)`` or ``("class", "zebra", 3)``; decides its seed.
        prompt: the text.
        source: returns the image to start from, RGB uint8 [H,W,3]; None starts from noise.
        attributes: the class's attribute row [A], or None.
    """

    key: ImageKey
    prompt: str
    source: Callable[[], np.ndarray] | None = None
    attributes: np.ndarray | None = None


ImageBatches = Iterator[list[tuple[ImageRequest, Image.Image]]]


def image_seed(seed: int, key: ImageKey) -> int:
    """Return the seed of one image, 0..2⁶³-1.

    >>> seeds = [image_seed(42, ("row", row, 0)) for row in (7, 7, 8)]
    >>> seeds[0] == seeds[1] != seeds[2]
    True
    """
    text = repr((seed, *key)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


class DiffusionImageGenerator:
    """A pipeline of diffusers; loaded at the first image.

    Attributes:
        identity: everything that decides its images; JSON values.
        side: of its images, px.
    """

    def __init__(self, options: Options) -> None:
        """Find the model (fetching a tag) without loading it.

        Raises:
            UserError: no such model, or another kind of model.
        """
        assert options.model is not None
        self.options = options
        self.path = weights.find(options.model, "--model", MARKER, KIND, _fetch_pipeline)
        if options.model_config is not None:
            config = Path(options.model_config).expanduser()
            if not (config / MARKER).is_file():
                raise UserError(
                    f"--model-config: '{config}' is not a diffusers folder: it has no {MARKER}."
                )
        self.adapter = None
        if options.adapter is not None:
            self.adapter = weights.find(
                options.adapter, "--adapter", "config.json", ADAPTER_KIND, weights.fetch
            )
        self.side = options.size or _default_side(options, self.path)
        self.identity: dict[str, Any] = {
            "model": options.model,
            "fingerprint": weights.fingerprint(self.path),
            "negative_prompt": options.negative_prompt,
            "steps": options.steps,
            "guidance": options.guidance,
            "size": options.size,
            "seed": options.seed,
            "dtype": str(options.number_type()).removeprefix("torch."),
            "safety_checker": False,
        }
        if options.condition != "none":
            self.identity["condition"] = options.condition
        if options.condition == "image":
            self.identity["strength"] = options.strength
        if self.adapter is not None:
            self.identity["adapter"] = weights.fingerprint(self.adapter)
        self._pipeline: Any = None

    def generate(self, requests: Sequence[ImageRequest]) -> ImageBatches:
        """Yield RGB images in batches, in order; the batch is halved when memory runs out.

        Raises:
            UserError: the model cannot be loaded, or memory does not hold one image.
        """
        if self._pipeline is None:
            self._pipeline = self._load()
        on_cpu = self.options.torch_device().type == "cpu"
        size = self.options.batch_size or (1 if on_cpu else 8)
        yield from in_batches(requests, size, self._batch, "pictures")

    def _batch(self, requests: Sequence[ImageRequest]) -> list[Image.Image]:
        options = self.options
        arguments: dict[str, Any] = {}
        sources = [Image.fromarray(r.source()) for r in requests if r.source is not None]
        if options.guidance > 1 and options.negative_prompt:
            arguments["negative_prompt"] = [options.negative_prompt] * len(requests)
        if options.condition == "image":
            side = (self.side, self.side)
            arguments["image"] = [s.resize(side, Image.Resampling.BICUBIC) for s in sources]
            arguments["strength"] = options.strength
        elif options.size is not None or options.condition == "mosaic":
            arguments.update(height=self.side, width=self.side)
        if options.condition == "mosaic":
            arguments["image"] = [mosaic(source, self.side) for source in sources]
        accepted = inspect.signature(type(self._pipeline).__call__).parameters
        unknown = [name for name in arguments if name not in accepted]
        if unknown:
            raise UserError(
                f"--model {options.model} is a {type(self._pipeline).__name__}, which takes "
                f"no {unknown[0]}; leave that option out, or give another model."
            )
        generators = [
            torch.Generator().manual_seed(image_seed(options.seed, r.key)) for r in requests
        ]
        with torch.inference_mode():
            output = self._pipeline(
                prompt=[request.prompt for request in requests],
                num_inference_steps=options.steps,
                guidance_scale=options.guidance,
                generator=generators,
                **arguments,
            )
        return [image.convert("RGB") for image in output.images]

    def _load(self) -> Any:
        """Load the pipeline onto the device.

        Raises:
            UserError: it cannot be loaded, or it is no text-to-image model.
        """
        options, number_type = self.options, self.options.number_type()
        with weights.loading(str(options.model), "--model", KIND):
            load = self._load_file if self.path.is_file() else self._load_folder
            pipeline = load(number_type)
            if options.condition == "image":
                from diffusers import AutoPipelineForImage2Image

                pipeline = AutoPipelineForImage2Image.from_pipe(pipeline)
        if self.adapter is not None:
            pipeline = self._with_adapter(pipeline, number_type)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline.to(options.torch_device())

    def _load_folder(self, number_type: torch.dtype) -> Any:
        from diffusers import AutoPipelineForText2Image

        index = weights.read_json(self.path / MARKER)
        options: dict[str, Any] = {}
        if "safety_checker" in index:
            options = {"safety_checker": None, "requires_safety_checker": False}
        return AutoPipelineForText2Image.from_pretrained(
            self.path, dtype=number_type, local_files_only=True, **options
        )

    def _load_file(self, number_type: torch.dtype) -> Any:
        """Load a single file; ``--model-config`` or its size decides the pipeline class."""
        import diffusers

        config = self.options.model_config
        name = "StableDiffusionPipeline"
        if config is not None:
            name = weights.read_json(Path(config).expanduser() / MARKER).get("_class_name", name)
        elif self.path.stat().st_size > 5 << 30:
            name = "StableDiffusionXLPipeline"  # half-precision SD 1 and 2 have 2 GB, SDXL 7
        options: dict[str, Any] = {"config": str(Path(config).expanduser())} if config else {}
        if name == "StableDiffusionPipeline":
            options["safety_checker"] = None
        try:
            return getattr(diffusers, name).from_single_file(
                str(self.path), dtype=number_type, **options
            )
        except Exception as error:
            if config is not None or not weights.is_hub_error(error):
                raise
            raise UserError(
                f"--model {self.path}: a single file holds no settings, and the model hub does not "
                "give them; give --model-config DIR, a diffusers folder of the same architecture."
            ) from error

    def _with_adapter(self, loaded: Any, number_type: torch.dtype) -> Any:
        from diffusers import StableDiffusionAdapterPipeline, StableDiffusionPipeline, T2IAdapter

        if not isinstance(loaded, StableDiffusionPipeline):
            raise UserError(
                f"--adapter: --model {self.options.model} is a {type(loaded).__name__}; "
                "T2I-Adapters for colours go with Stable Diffusion 1."
            )
        pipeline: Any = loaded
        with weights.loading(str(self.options.adapter), "--adapter", ADAPTER_KIND):
            adapter = T2IAdapter.from_pretrained(self.adapter, dtype=number_type)
            channels, needed = adapter.config.channels, pipeline.unet.config.block_out_channels
            if list(channels) != list(needed):
                raise UserError(
                    f"--adapter {self.options.adapter} is for a model of {list(channels)} "
                    f"channels, and --model {self.options.model} has {list(needed)}; "
                    "give one that fits it."
                )
            parts = {
                name: part for name, part in pipeline.components.items() if name != "image_encoder"
            }
            return StableDiffusionAdapterPipeline(
                **parts, adapter=adapter, requires_safety_checker=False
            )


def mosaic(image: Image.Image, side: int) -> Image.Image:
    """Return ``image`` reduced to 8×8 colors, ``side`` px wide and high."""
    small = image.resize((8, 8), Image.Resampling.BILINEAR)
    return small.resize((side, side), Image.Resampling.NEAREST)


def _default_side(options: Options, path: Path) -> int:
    """Return the side of a model's images without ``--size``, px."""
    folder = path if path.is_dir() else Path(options.model_config or path)
    unet = weights.read_json(folder / "unet" / "config.json")
    vae = weights.read_json(folder / "vae" / "config.json")
    side, levels = unet.get("sample_size"), vae.get("block_out_channels")
    if not isinstance(side, int) or not isinstance(levels, list):
        return _UNKNOWN_SIDE
    return side * int(2 ** (len(levels) - 1))


def _fetch_pipeline(tag: str) -> str:
    from diffusers import DiffusionPipeline

    return str(DiffusionPipeline.download(tag))
