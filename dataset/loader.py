"""Batches of chosen rows, fast and the same again when a run is resumed.

Nothing here keeps a random state: which caption is drawn, how an image is changed and in which
order rows come depend on (seed, epoch, position) only. So a run that is killed and resumed reads
the same batches as one that was not, with any number of workers and processes.
"""

from __future__ import annotations

import dataclasses
import functools
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from common.batch import Batch, Features
from dataset.augmentation import Draws, uniform
from dataset.image_cache import OriginalImages
from dataset.image_operations import Operation
from dataset.images import thread_pool
from dataset.operation_lists import apply_drawn
from dataset.pixel_budget import pixel_budget
from utils.errors import UserError, unknown_name

CAPTIONS = ("first", "random")
Array = np.ndarray | Tensor


class RowImages(Protocol):
    """Images that can be asked for rows: an array, or a store of :mod:`dataset.image_cache`."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: np.ndarray) -> Sequence[np.ndarray]:
        """Return the images of ``rows``, int [m], each uint8 [H,W,3]."""
        ...


class ImagePreparation(Protocol):
    """How a backbone wants images: ``size`` px square, (x/255 - mean) / std per channel."""

    @property
    def size(self) -> int:
        """Side in pixels."""

    @property
    def mean(self) -> tuple[float, float, float]:
        """Mean per channel, of values in 0..1."""

    @property
    def std(self) -> tuple[float, float, float]:
        """Standard deviation per channel."""


def flatten_captions(texts: Sequence[Sequence[str]]) -> tuple[list[str], np.ndarray]:
    """Return all T captions in one list, and offsets int64 [N+1]: row i has offsets[i]..[i+1]-1.

    >>> flatten_captions([("a", "b"), ("c",)])
    (['a', 'b', 'c'], array([0, 2, 3]))
    """
    offsets = np.zeros(len(texts) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in texts], out=offsets[1:])
    return [caption for row in texts for caption in row], offsets


@dataclasses.dataclass(frozen=True)
class ViewInputs:
    """What a view reads of the N rows of a dataset: images and texts, or their cached features.

    Arrays are indexed by row, or by caption (T in all) where they belong to texts; they may be
    memory-mapped.

    Attributes:
        images: of N rows: uint8 [N,S,S,3] with S = ``image_input.size``, or images [H,W,3] that
            ``operations`` make squares of S px.
        image_input: how the backbone wants them.
        operations: what is done to an image at every access, drawn anew per image and epoch.
        tokens: token ids int64 [T,L] and padding mask bool [T,L] (True = hidden).
        image_features: cached features of images: (pooled [N,D], tokens [N,L,D] or None, mask [N,L]
            or None).
        text_features: the same of captions, [T,…].
        caption_offsets: int64 [N+1] as from :func:`flatten_captions`; None = one caption per row.
    """

    images: RowImages | None = None
    image_input: ImagePreparation | None = None
    operations: tuple[Operation, ...] = ()
    tokens: tuple[Array, Array] | None = None
    image_features: Features | Sequence[Array | None] | None = None
    text_features: Features | Sequence[Array | None] | None = None
    caption_offsets: np.ndarray | None = None


class SplitView(Dataset):
    """The rows of one part of a split, returned as batches.

    ``view.__getitems__([3, 0])`` is the :class:`~common.batch.Batch` of positions 3 and 0; a
    position counts within ``rows``.
    """

    def __init__(
        self,
        rows: np.ndarray,
        labels: np.ndarray,
        inputs: ViewInputs | None = None,
        *,
        captions: str = "first",
        caption_rows: np.ndarray | None = None,
        extras: Mapping[str, Array] | None = None,
        auxiliary: Mapping[str, SplitView] | None = None,
        seed: int = 0,
    ) -> None:
        """Choose rows and what their batches hold.

        Args:
            rows: int [n], row numbers in the dataset of N rows.
            labels: float [N,C].
            inputs: images and texts, or their features; None for neither.
            captions: ``first``, or ``random``: one drawn per access, by (seed, epoch, position).
            caption_rows: int [n], the row whose captions each position gets (see
                :mod:`dataset.caption_noise`); None = its own.
            extras: further arrays [N,…] for ``Batch.extras``.
            auxiliary: views for ``Batch.auxiliary``, of n positions each.
            seed: of captions and of the operations on images.

        Raises:
            UserError: an unknown ``captions``.
            ValueError: arrays whose shapes do not fit.
        """
        if captions not in CAPTIONS:
            raise unknown_name("choice of captions (data.captions)", captions, CAPTIONS)
        self.inputs = ViewInputs() if inputs is None else inputs
        self.rows = np.asarray(rows, dtype=np.int64)
        self.labels = torch.from_numpy(np.asarray(labels[self.rows], dtype=np.float32))  # [n,C]
        self.captions, self.seed = captions, seed
        self.extras, self.auxiliary = dict(extras or {}), dict(auxiliary or {})
        for name, view in self.auxiliary.items():
            if len(view) != len(self.rows):
                raise ValueError(f"'{name}' has {len(view)} positions, not {len(self.rows)}")
        offsets = self.inputs.caption_offsets
        offsets = np.arange(len(labels) + 1) if offsets is None else offsets
        captioned = self.rows if caption_rows is None else np.asarray(caption_rows, dtype=np.int64)
        self._first_caption = offsets[captioned]
        self._n_captions = offsets[captioned + 1] - self._first_caption
        self._epoch = torch.zeros((), dtype=torch.int64)
        if self.inputs.images is not None:
            self._scale, self._shift = _scale_and_shift(self.inputs)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def epoch(self) -> int:
        """The epoch that captions and operations on images are drawn for."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Draw anew, for ``epoch``."""
        self._epoch.fill_(epoch)

    def share_epoch(self) -> None:
        """Let worker processes that live on see :meth:`set_epoch`."""
        self._epoch.share_memory_()

    def __getitem__(self, position: int) -> Batch:
        """Return the batch of one position."""
        return self.__getitems__([position])

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        """Return the batch of ``positions``, in that order."""
        at, inputs = np.asarray(positions, dtype=np.int64), self.inputs
        rows = self.rows[at]
        index = torch.from_numpy(at)
        batch = Batch(label=self.labels[index], index=index)
        if inputs.images is not None:
            batch.image = self._images(inputs.images, rows, at)
        batch.image_features = _features(inputs.image_features, rows)
        if inputs.tokens is not None or inputs.text_features is not None:
            caption = self._caption(at)
            batch.text_features = _features(inputs.text_features, caption)
            if inputs.tokens is not None:
                batch.text, batch.text_mask = (_take(part, caption) for part in inputs.tokens)
        batch.extras = {name: _take(array, rows) for name, array in self.extras.items()}
        batch.auxiliary = {n: view.__getitems__(positions) for n, view in self.auxiliary.items()}
        return batch

    def _caption(self, at: np.ndarray) -> np.ndarray:
        """Return the number of the caption to use for each position, int64 [B]."""
        first = self._first_caption[at]
        if self.captions == "first":
            return first
        drawn = uniform(self.seed, self.epoch, at, 0) * self._n_captions[at]
        return first + drawn.astype(np.int64)

    def _images(self, images: RowImages, rows: np.ndarray, at: np.ndarray) -> Tensor:
        """Return the images of ``rows`` as float [B,3,S,S], changed by chance and normalised."""
        assert self.inputs.image_input is not None
        size = self.inputs.image_input.size
        draws = Draws(self.seed, self.epoch, at)
        result = np.empty((len(rows), 3, size, size), dtype=np.float32)

        def prepare(item: int) -> None:
            pixels = images[rows[item : item + 1]][0]
            numbers = functools.partial(draws.number, item)
            image = apply_drawn(self.inputs.operations, pixels, numbers)
            # Plane by plane everything stays in the processor's cache: five times as fast as whole
            # batches in torch (128 images of 224 px: 33 ms against 180 ms on two shared cores).
            for c, plane in enumerate(result[item]):
                plane[...] = image[..., c]
                plane *= self._scale[c]
                plane += self._shift[c]

        def prepare_within_budget(item: int) -> None:
            with pixel_budget.kept():
                prepare(item)

        if isinstance(images, OriginalImages) and get_worker_info() is None:
            with thread_pool(1) as pool:  # decoding and resizing run beside each other
                list(pool.map(prepare_within_budget, range(len(rows))))
        else:
            for item in range(len(rows)):
                prepare(item)
        return torch.from_numpy(result)


def _scale_and_shift(inputs: ViewInputs) -> tuple[np.ndarray, np.ndarray]:
    """Return factor and summand of each channel, float32 [3], that normalise bytes."""
    image_input = inputs.image_input
    if image_input is None:
        raise ValueError("pictures need an image_input: size, mean and std")
    shape = getattr(inputs.images, "shape", None)
    if not inputs.operations and shape and shape[1:] != (image_input.size, image_input.size, 3):
        raise ValueError(f"pictures {shape} do not have {image_input.size} px")
    mean, std = np.array(image_input.mean), np.array(image_input.std)
    return (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)


def _take(array: Array, rows: np.ndarray) -> Tensor:
    """Return ``array[rows]`` as a new tensor."""
    if isinstance(array, Tensor):
        if array.device.type != "cpu" or array.dtype == torch.bfloat16:
            return array[torch.from_numpy(rows).to(array.device)]
        array = array.numpy()  # gathers small batches many times faster than torch
    return torch.from_numpy(np.ascontiguousarray(array[rows]))


def _features(parts: Sequence[Array | None] | None, rows: np.ndarray) -> Features | None:
    """Return features of ``rows``; numbers stored in another form come as float32."""
    if parts is None:
        return None
    taken = [None if part is None else _take(part, rows) for part in parts]
    full = [t if t is None or t.dtype == torch.bool else t.float() for t in taken]
    return Features(*full)  # type: ignore[arg-type]


class EpochOrder(Sampler[list[int]]):
    """Batches of positions 0..n-1, shuffled by (seed, epoch).

    With ``world`` processes every one of them gets its share of the same global batch: shares
    differ by at most one row and none is empty (a last batch of fewer rows than processes is added
    to the one before).
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """Take the number of positions and the size of the global batch.

        Raises:
            UserError: no batch comes out, or a batch has fewer rows than there are processes.
        """
        if batch_size < 1 or n < 1:
            raise UserError(f"batch_size={batch_size} over {n} rows: both must be at least 1.")
        if min(batch_size, n) < world:
            raise UserError(
                f"A batch of {min(batch_size, n)} rows cannot be shared by {world} processes; "
                "raise batch_size or start fewer."
            )
        if drop_last and n < batch_size:
            raise UserError(
                f"batch_size={batch_size} with drop_last leaves no batch of {n} rows; lower it."
            )
        self.n, self.batch_size, self.shuffle, self.seed = n, batch_size, shuffle, seed
        self.rank, self.world, self.epoch = rank, world, 0
        ends = list(range(batch_size, n + 1, batch_size))
        if n % batch_size and not drop_last:
            if ends and n % batch_size < world:
                ends.pop()
            ends.append(n)
        self._ends = ends

    def set_epoch(self, epoch: int) -> None:
        """Shuffle anew, for ``epoch``."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.arange(self.n)
        if self.shuffle:
            order = np.random.RandomState([self.seed % 2**32, self.epoch]).permutation(self.n)
        start = 0
        for end in self._ends:
            yield np.array_split(order[start:end], self.world)[self.rank].tolist()
            start = end


def _as_is(batch: Batch) -> Batch:
    return batch


def make_loader(
    view: SplitView,
    batch_size: int,
    shuffle: bool = False,
    seed: int = 0,
    workers: int = 0,
    drop_last: bool = False,
    rank: int = 0,
    world: int = 1,
) -> DataLoader:
    """Return a loader of :class:`~common.batch.Batch`; see :class:`EpochOrder` for the order.

    Cached features and small pictures need no ``workers``; with some, call :func:`set_epoch` before
    an epoch's iteration starts.

    Raises:
        UserError: the sizes do not fit, or ``workers`` is negative.
    """
    if workers < 0:
        raise UserError(f"data.workers={workers}: 0 (no worker processes) or more is needed.")
    order = EpochOrder(len(view), batch_size, shuffle, seed, drop_last, rank, world)
    context = None
    if workers:
        view.share_epoch()
        # Forked workers share the memory-mapped arrays; other ways to start would send copies.
        context = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    return DataLoader(
        view,
        batch_sampler=order,
        collate_fn=_as_is,  # type: ignore[arg-type]
        num_workers=workers,
        persistent_workers=workers > 0,
        multiprocessing_context=context,
        generator=torch.Generator().manual_seed(seed),  # leaves torch's own random state alone
    )


def set_epoch(loader: DataLoader, epoch: int) -> None:
    """Tell the order, the captions and the operations on images which epoch begins (0-based)."""
    loader.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
    loader.dataset.set_epoch(epoch)  # type: ignore[attr-defined]
