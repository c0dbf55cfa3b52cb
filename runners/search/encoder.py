"""The model of a finished run, for pictures and texts that it has not seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from common.batch import Batch
from common.config.layers import read_layer
from common.config.run_config import RunConfig, compose_layers
from common.seeding import make_deterministic, seed_everything
from common.storage import checkpoint
from common.storage.run_folder import RunFolder
from dataset.base import BadImageError, ImageSource
from dataset.image_cache import Geometry
from dataset.loader import SplitView, ViewInputs
from dataset.splits import SplitManifest
from models.backbones.base import CachedBackbone
from models.base import HashModel
from runners.evaluation.measure import encode
from runners.experiment import Experiment, problem_of
from runners.inputs import loading
from utils.errors import UserError
from utils.files import digest
from utils.progress import progress_bar


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Codes of what could be encoded, in order.

    Attributes:
        codes: int8 [n,K] of ±1.
        kept: int64 [n], the positions that they belong to.
        bad: position → what is wrong with it.
    """

    codes: np.ndarray
    kept: np.ndarray
    bad: dict[int, str]


class Encoder:
    """A trained model with its encoder, as a run left it."""

    def __init__(self, path: str | Path, device: str | None = None) -> None:
        """Rebuild the model of the run at ``path``; its dataset has to be at hand.

        Raises:
            UserError: not a finished run, its checkpoint or its dataset is gone, or either differs.
        """
        self.folder = RunFolder.existing(path)
        if not self.folder.is_done:
            state = self.folder.status().get("state", "unknown")
            raise UserError(f"'{path}' is not finished (its state: {state}); finish it first.")
        self.config = compose_layers([read_layer(self.folder.config_file)])
        make_deterministic()
        self.device = loading.choose_device(self.config, device)
        self.model, self.mark = _rebuilt(self.folder, self.config, self.device)
        self.model.eval()

    @property
    def bits(self) -> int:
        """Code length K."""
        return self.config.bits

    def needs(self, modality: str) -> None:
        """Refuse a modality that the run does not hash.

        Raises:
            UserError: naming those that it does.
        """
        if modality not in self.model.modalities:
            raise UserError(
                f"'{self.folder.path}' hashes {' and '.join(self.model.modalities)} only, so a "
                f"{modality} cannot be encoded; choose a run of a dataset with both."
            )

    def pictures(self, source: ImageSource) -> Encoded:
        """Encode pictures; those that cannot be read are left out and told.

        Raises:
            UserError: the run hashes no pictures, or none can be read.
        """
        self.needs("image")
        bad: dict[int, str] = {}
        with progress_bar("encoding pictures", len(source)) as advance:
            codes = self._codes(self._picture_batches(source, bad, advance), "image")
        if len(source) and len(bad) == len(source):
            raise UserError(f"None of {len(source)} pictures can be read; the first: {bad[0]}")
        kept = np.array([row for row in range(len(source)) if row not in bad], np.int64)
        return Encoded(codes, kept, bad)

    def texts(self, texts: list[str]) -> Encoded:
        """Encode texts.

        Raises:
            UserError: the run hashes no texts.
        """
        self.needs("text")
        return Encoded(self._codes(self._text_batches(texts), "text"), np.arange(len(texts)), {})

    def _codes(self, batches: Iterator[Batch], modality: str) -> np.ndarray:
        try:
            return encode(self.model, batches, self.device, [modality])[modality]
        except (KeyError, AttributeError) as error:
            raise UserError(
                f"Model '{self.config.model.name}' cannot encode a {modality} alone ({error}); it "
                "reads further inputs that only the dataset of its run has."
            ) from error

    def _picture_batches(
        self, source: ImageSource, bad: dict[int, str], advance: Callable[[int], None]
    ) -> Iterator[Batch]:
        image_input = self.model.backbone.image_input
        assert image_input is not None
        geometry = Geometry(self.config.data.eval_geometry, image_input.size)

        def read(row: int) -> np.ndarray | str:
            try:
                return geometry.apply(source.decode(row))
            except BadImageError as error:
                return str(error)

        with ThreadPoolExecutor() as pool:
            for rows in self._steps(len(source)):
                found = list(pool.map(read, rows))
                whole = [picture for picture in found if not isinstance(picture, str)]
                told = zip(rows, found, strict=True)
                bad.update({row: reason for row, reason in told if isinstance(reason, str)})
                if whole:
                    blank = np.zeros((len(whole), self.model.problem.n_classes), np.float32)
                    inputs = ViewInputs(np.stack(whole), image_input)
                    view = SplitView(np.arange(len(whole)), blank, inputs)
                    yield view.__getitems__(range(len(whole)))
                advance(len(rows))

    def _text_batches(self, texts: list[str]) -> Iterator[Batch]:
        for rows in self._steps(len(texts)):
            ids, mask = self.model.backbone.tokenize([texts[row] for row in rows])
            label = torch.zeros(len(ids), self.model.problem.n_classes)
            yield Batch(label=label, index=torch.arange(len(ids)), text=ids, text_mask=mask)

    def _steps(self, rows: int) -> Iterator[range]:
        size = self.config.data.eval_batch_size
        return (range(start, min(start + size, rows)) for start in range(0, rows, size))


def _rebuilt(
    folder: RunFolder, config: RunConfig, device: torch.device
) -> tuple[HashModel, str]:  # fmt: skip
    """Return the model with its encoder in the state whose codes the run kept, and a mark of it."""
    selected = folder.metrics()["protocol"]["selected"]["on"]
    if selected == "fit":  # such runs keep no checkpoint: fitting again takes seconds
        experiment = Experiment.build(config, device)
        experiment.fit_model()
        model = experiment.model
        if isinstance(model.backbone, CachedBackbone):
            request = loading.input_request(config, experiment.dataset)
            model.backbone = loading.load_encoder(config, request).to(device)
        return model, "fit"
    state = folder.checkpoints / ("last" if selected == "last" else "best")
    if not (state / "model.safetensors").is_file():
        raise UserError(
            f"'{folder.path}' keeps no checkpoint ('{state}' is gone), so nothing new can be "
            "encoded; train it again with another output."
        )
    dataset = loading.load_dataset(config)
    request = loading.input_request(config, dataset)
    if request.generated_rows:  # they count among the rows that it was trained on
        dataset = loading.add_generated(config, dataset)
    saved = folder.path / "split.npz"
    split = SplitManifest.load(saved) if saved.is_file() else dataset.split
    backbone = loading.load_encoder(config, request)
    seed_everything(config.seed)
    problem = problem_of(config, dataset, split)
    model = config.model.entry.target(config.model.config, problem, backbone).to(device)
    checkpoint.load_modules(state, {"model": model})
    changed = (state / "model.safetensors").stat().st_mtime_ns
    return model, digest((state / "state.json").read_text(), str(changed))
