"""The model of a finished run, for new images and texts."""

from __future__ import annotations

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
from dataset.loader import SplitView, ViewInputs
from dataset.splits import SplitManifest
from models.backbones.base import CachedBackbone
from models.base import HashModel
from runners.evaluation.measure import encode
from runners.experiment import Experiment, problem_of
from runners.inputs import loading
from runners.inputs.image_operations import eval_geometry
from utils.errors import UserError
from utils.files import digest
from utils.progress import progress_bar


class Encoder:
    """The trained model of a run with its encoder."""

    def __init__(self, path: str | Path, device: str | None = None) -> None:
        """Restore the model of the run at ``path``; its dataset must be available.

        Raises:
            UserError: not a finished run, or its checkpoint or dataset is missing or differs.
        """
        self.folder = RunFolder.existing(path)
        if not self.folder.says_done:
            state = self.folder.status().get("state", "unknown")
            raise UserError(f"'{path}' is not finished (its state: {state}); finish it first.")
        self.folder.require_whole()
        self.config = compose_layers([read_layer(self.folder.config_file)])
        make_deterministic()
        self.device = loading.choose_device(self.config, device)
        self.model, self.fingerprint = _restore_model(self.folder, self.config, self.device)
        self.model.eval()

    def require(self, modality: str) -> None:
        """Refuse a modality that the run does not hash.

        Raises:
            UserError: names the modalities of the run.
        """
        if modality not in self.model.modalities:
            raise UserError(
                f"'{self.folder.path}' hashes {' and '.join(self.model.modalities)} only, so a "
                f"{modality} cannot be encoded; choose a run of a dataset with both."
            )

    def encode_images(self, source: ImageSource) -> tuple[np.ndarray, dict[int, str]]:
        """Return int8 codes [n,K] of ±1 of the readable images, and row → why another is not.

        Raises:
            UserError: the run does not hash images, or none can be read.
        """
        self.require("image")
        errors: dict[int, str] = {}
        with progress_bar("encoding pictures", len(source)) as advance:
            codes = self._codes(self._image_batches(source, errors, advance), "image")
        if len(source) and len(errors) == len(source):
            raise UserError(f"None of {len(source)} pictures can be read; the first: {errors[0]}")
        return codes, errors

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        """Return int8 codes [N,K] of ±1.

        Raises:
            UserError: the run does not hash texts.
        """
        self.require("text")
        return self._codes(self._text_batches(texts), "text")

    def _codes(self, batches: Iterator[Batch], modality: str) -> np.ndarray:
        try:
            return encode(self.model, batches, self.device, [modality])[modality]
        except (KeyError, AttributeError) as error:
            raise UserError(
                f"Model '{self.config.model.name}' cannot encode a {modality} alone ({error}); it "
                "reads further inputs that only the dataset of its run has."
            ) from error

    def _image_batches(
        self, source: ImageSource, errors: dict[int, str], advance: Callable[[int], None]
    ) -> Iterator[Batch]:
        image_input = self.model.backbone.image_input
        assert image_input is not None
        geometry = eval_geometry(self.config.data, image_input.size)

        def read(row: int) -> np.ndarray | str:
            try:
                return geometry.apply(source.decode(row), source.name(row))
            except BadImageError as error:
                return str(error)

        with ThreadPoolExecutor() as pool:
            for rows in self._steps(len(source)):
                results = dict(zip(rows, pool.map(read, rows), strict=True))
                errors.update({row: r for row, r in results.items() if isinstance(r, str)})
                images = [image for image in results.values() if not isinstance(image, str)]
                if images:
                    labels = np.zeros((len(images), self.model.problem.n_classes), np.float32)
                    inputs = ViewInputs(np.stack(images), image_input)
                    view = SplitView(np.arange(len(images)), labels, inputs)
                    yield view.__getitems__(range(len(images)))
                advance(len(rows))

    def _text_batches(self, texts: list[str]) -> Iterator[Batch]:
        for rows in self._steps(len(texts)):
            ids, mask = self.model.backbone.tokenize([texts[row] for row in rows])
            label = torch.zeros(len(ids), self.model.problem.n_classes)
            yield Batch(label=label, index=torch.arange(len(ids)), text=ids, text_mask=mask)

    def _steps(self, rows: int) -> Iterator[range]:
        size = self.config.data.eval_batch_size
        return (range(start, min(start + size, rows)) for start in range(0, rows, size))


def _restore_model(
    folder: RunFolder, config: RunConfig, device: torch.device
) -> tuple[HashModel, str]:  # fmt: skip
    """Return the model in the state that produced the codes of the run, and a fingerprint."""
    selected = folder.metrics()["protocol"]["selected"]["on"]
    if selected == "fit":  # no checkpoint is kept: fitting again takes seconds
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
    split_file = folder.path / "split.npz"
    split = SplitManifest.load(split_file) if split_file.is_file() else dataset.split
    backbone = loading.load_encoder(config, request)
    seed_everything(config.seed)
    problem = problem_of(config, dataset, split)
    model = config.model.entry.target(config.model.config, problem, backbone).to(device)
    checkpoint.verify(state)
    checkpoint.load_modules(state, {"model": model})
    modified = (state / "model.safetensors").stat().st_mtime_ns
    return model, digest((state / "state.json").read_text(), str(modified))
