"""The model of a finished run, for new images and texts."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.batch import Batch
from common.config.layers import Layer, read_layer
from common.config.plugins import Received
from common.config.run_config import compose_layers
from common.seeding import make_deterministic, seed_everything
from common.storage import checkpoint
from common.storage.contents import content_digest
from common.storage.identity import Identity
from common.storage.run_folder import RunFolder
from dataset.base import BadImageError, ImageSource
from dataset.loader import SplitView, ViewInputs
from dataset.picture_forms import Colour
from dataset.row_features import RowFeatures
from dataset.splits import SplitManifest
from models.backbones.base import Backbone, CachedBackbone
from models.base import HashModel
from runners.evaluation.measure import encode
from runners.experiment import Experiment, problem_of
from runners.inputs import loading
from runners.inputs.identity import identity_of
from runners.inputs.image_operations import eval_geometry
from utils.errors import UserError
from utils.files import digest
from utils.progress import progress_bar


class Encoder:
    """The trained model of a run with its encoder."""

    def __init__(
        self, path: str | Path, device: str | None = None, *,
        plugins: Sequence[str] = (), received: Received = "refuse", accept_changed: bool = False,
    ) -> None:  # fmt: skip
        """Restore the model of the run at ``path``; its dataset must be available.

        Args:
            path: the run folder.
            device: None: a GPU where there is one.
            plugins: Python files of the user's that it needs.
            received: what is done with the plugins that the folder names.
            accept_changed: encoder and data may have another content than the run's.

        Raises:
            UserError: not a finished run, or its checkpoint or dataset is missing or differs.
        """
        self.folder = RunFolder.existing(path)
        if not self.folder.says_done:
            state = self.folder.status().get("state", "unknown")
            raise UserError(f"'{path}' is not finished (its state: {state}); finish it first.")
        self.folder.require_whole()
        typed = Layer("command line", {"plugins": list(plugins)})
        self.config = compose_layers([read_layer(self.folder.config_file), typed], received)
        make_deterministic()
        self.device = loading.choose_device(self.config, device)
        self.accept_changed = accept_changed
        self._accepted: list[dict[str, str]] = []
        self.model, self.fingerprint = self._restore_model()
        self.model.eval()

    @property
    def colour(self) -> Colour:
        """How pictures of one's own become RGB: as the run's did where its dataset states it."""
        return getattr(self.config.dataset.config, "colour", None) or "as_seen"

    def check(self, recorded: Mapping[str, Any], made: str) -> None:
        """Refuse what was made with another encoder, or of other data, than there is now.

        Raises:
            ChangedError: names both.
        """
        if self._accepted and self.identity.changes(recorded) == self._accepted:
            return  # said once
        changes = self._accepted = self.identity.check(recorded, made, self.accept_changed)
        with contextlib.suppress(UserError, OSError):  # a run of someone else's is only read
            self.folder.record_accepted(changes, "search or encode")

    def _meet(self, identity: Identity) -> None:
        self.identity = identity
        self.check(self.folder.identity, f"Run '{self.folder.path}'")

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
        self._require_encoder("image")
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
        self._require_encoder("text")
        return self._codes(self._text_batches(texts), "text")

    def encode_features(self, features: RowFeatures, modality: str) -> np.ndarray:
        """Return int8 codes [N,K] of ±1 of features; of captions N counts each.

        Raises:
            UserError: the run does not hash ``modality``, or its encoder gives other features.
        """
        self.require(modality)
        parts, width = features.arrays[modality], self.model.backbone.widths[modality]
        if parts.pooled.shape[1] != width:
            raise UserError(
                f"Features of {parts.pooled.shape[1]} numbers are given, but "
                f"'{self.folder.path}' was trained on {width}; give those of its encoder."
            )
        inputs = ViewInputs(**{f"{modality}_features": parts})  # type: ignore[arg-type]
        rows = np.arange(len(parts.pooled))
        labels = np.zeros((len(rows), self.model.problem.n_classes), np.float32)
        view = SplitView(rows, labels, inputs)
        batches = (view.__getitems__(step) for step in self._steps(len(rows)))
        return self._codes(batches, modality)

    def _require_encoder(self, modality: str) -> None:
        """Load the encoder where the run was trained on features that were given."""
        self.require(modality)
        if not isinstance(self.model.backbone, CachedBackbone):
            return
        if self.config.backbone.name == "features":
            raise UserError(
                f"'{self.folder.path}' was trained on features, and no {modality} can be encoded "
                "without the encoder that made them: give features (encode --features FILE), or "
                "train with backbone=NAME, which says which encoder it was."
            )
        request = loading.input_request(self.config, loading.load_dataset(self.config))
        encoder = loading.load_encoder(self.config, request).to(self.device)
        if encoder.widths != self.model.backbone.widths:
            raise UserError(
                f"Encoder {self.config.backbone.name} gives {_widths(encoder)}, but "
                f"'{self.folder.path}' was trained on features of {_widths(self.model.backbone)}; "
                "they are another encoder's."
            )
        self.model.backbone = encoder.eval()

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

    def _restore_model(self) -> tuple[HashModel, str]:
        """Return the model in the state that produced the codes of the run, and a fingerprint."""
        folder, config = self.folder, self.config
        selected = folder.metrics()["protocol"]["selected"]["on"]
        if selected == "fit":  # no checkpoint is kept: fitting again takes seconds
            return self._fit_again(), digest("fit", *self.identity.as_json().values())
        state = folder.checkpoints / ("last" if selected == "last" else "best")
        if not (state / "model.safetensors").is_file():
            raise UserError(
                f"'{folder.path}' keeps no checkpoint ('{state}' is gone), so nothing new can be "
                "encoded; train it again with another output."
            )
        loaded = dataset = loading.load_dataset(config)
        request = loading.input_request(config, loaded)
        if request.generated_rows:  # they count among the rows that it was trained on
            dataset = loading.add_generated(config, loaded)
        if dataset.features is not None:
            backbone: Backbone = loading.given_features(config, dataset.features, request)
        else:
            backbone = loading.load_encoder(config, request)
        identity = identity_of(loaded, dataset, request, backbone, config.resolved)
        made_with = checkpoint.read_state(state).get("identity") or folder.identity
        if dataset is loaded and config.data.generated is not None:  # not read here
            identity = dataclasses.replace(identity, generated=made_with.get("generated", ""))
        self._meet(identity)
        if made_with:  # else it was told
            self.check(made_with, f"Checkpoint '{state}'")
        split_file = folder.path / "split.npz"
        split = SplitManifest.load(split_file) if split_file.is_file() else dataset.split
        seed_everything(config.seed)
        problem = problem_of(config, dataset, split)
        model = config.model.entry.target(config.model.config, problem, backbone).to(self.device)
        checkpoint.verify(state)
        checkpoint.load_modules(state, {"model": model})
        weights = content_digest(state / "model.safetensors")
        return model, digest(weights, self.identity.encoder)

    def _fit_again(self) -> HashModel:
        experiment = Experiment.build(self.config, self.device, self._meet)
        experiment.fit_model()
        model = experiment.model
        if isinstance(model.backbone, CachedBackbone) and experiment.dataset.features is None:
            request = loading.input_request(self.config, experiment.dataset)
            model.backbone = loading.load_encoder(self.config, request).to(self.device)
        return model


def _widths(backbone: Backbone) -> str:
    return " and ".join(f"{width} numbers a {m}" for m, width in backbone.widths.items())
