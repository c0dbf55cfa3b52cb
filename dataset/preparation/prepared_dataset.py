"""A prepared dataset for training: the index and a protocol's split as a HashDataset."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import ClassVar, TypeVar

from common.registry import DATASETS
from dataset.auxiliary.captions import captions_by_picture
from dataset.auxiliary.pseudo_images import with_listed_rows
from dataset.base import HashDataset
from dataset.mat import SECOND_CAPTIONS
from dataset.preparation.index import load_index
from dataset.preparation.protocol import Protocol, Selection
from dataset.preparation.selection import draw, select
from dataset.preparation.source import Source
from dataset.splits import SplitManifest
from utils.errors import UserError

SourceClass = TypeVar("SourceClass", bound=type[Source])


@dataclasses.dataclass(frozen=True)
class SplitChoice:
    """Keys of ``dataset.split``; what is left out is as the protocol states it.

    Attributes:
        name: of the protocol; the dataset's first one when left out.
        seed: of the draw, and of the rows that a run cuts off for validation.
        query: query rows, in all or per class.
        train: training rows, likewise.
        lists: folder of published list files.
    """

    name: str = ""
    seed: int | None = None
    query: int | None = None
    train: int | None = None
    lists: str | None = None


@dataclasses.dataclass(frozen=True)
class PreparedConfig:
    """Keys of a dataset that ``main.py prepare`` has indexed; a dataset's own class names it.

    Attributes:
        root: the folder that it was prepared in.
        split: the name of a protocol, or a mapping with ``name`` and further keys.
    """

    source: ClassVar[Source]

    root: str = ""
    split: SplitChoice | str = SplitChoice()

    def __post_init__(self) -> None:
        choice = self.split if isinstance(self.split, SplitChoice) else SplitChoice(self.split)
        protocol = self.source.protocol(choice.name or self.source.protocols[0].name)
        if choice.seed is None:
            choice = dataclasses.replace(choice, seed=protocol.seed)
        choice = dataclasses.replace(choice, name=protocol.name)
        object.__setattr__(self, "split", choice)  # complete, as written to config.yaml

    @property
    def choice(self) -> SplitChoice:
        """The split's keys, complete."""
        assert isinstance(self.split, SplitChoice)
        return self.split

    @property
    def folder(self) -> Path:
        """The dataset's folder.

        Raises:
            UserError: not set, or not there.
        """
        if not self.root:
            raise UserError(
                f"dataset.root is not set; give the folder that `main.py prepare {self.source.name}"
                " --root DIR` was given."
            )
        folder = Path(self.root).expanduser()
        if not folder.is_dir():
            raise UserError(
                f"dataset.root: '{folder}' is not a folder; make it ready with: python main.py "
                f"prepare {self.source.name} --root {folder}"
            )
        return folder

    @property
    def lists(self) -> Path | None:
        """Folder of published lists, if one is given."""
        return Path(self.choice.lists).expanduser() if self.choice.lists else None

    def protocol(self) -> Protocol:
        """Return the chosen protocol with the configured numbers in place of its own."""
        choice = self.choice
        overrides = {
            key: value
            for key in ("seed", "query", "train")
            if (value := getattr(choice, key)) is not None
        }
        return dataclasses.replace(self.source.protocol(choice.name), **overrides)


def open_prepared(config: PreparedConfig, name: str) -> HashDataset:
    """Return the dataset that ``config`` names, read from its index.

    Beside its rows it has what its authors' folder offers: VTPH's captions of the pictures, and
    the features and generated pictures of PZSH's training list.

    Raises:
        UserError: not prepared yet, a damaged index, or a split that does not fit.
    """
    source, protocol = config.source, config.protocol()
    index = load_index(config.folder, source.name)
    selection = select(source, index, protocol, config.folder, config.lists)
    dataset = as_dataset(config, name, selection, draw(selection, protocol))
    if selection.trained_on is not None:
        folders = [selection.trained_on.file.parent, config.folder]
        dataset = with_listed_rows(dataset, selection.trained_on, folders)
    if (config.folder / SECOND_CAPTIONS).is_file():
        captions = captions_by_picture(dataset, config.folder)
        dataset.auxiliary = {**dataset.auxiliary, "second": captions}
    return dataset


def prepared(source_class: SourceClass) -> SourceClass:
    """Register a source as a dataset, with a config class of its own and its docstring."""
    source = source_class()
    members = {"source": source, "__doc__": f"Keys of ``{source.name}``."}
    config_class = type(f"{source_class.__name__}Config", (PreparedConfig,), members)

    @DATASETS.register(source.name, config=config_class)
    @functools.wraps(source_class, updated=())
    def build(config: PreparedConfig, name: str) -> HashDataset:
        return open_prepared(config, name)

    return source_class


def as_dataset(
    config: PreparedConfig, name: str, selection: Selection, split: SplitManifest
) -> HashDataset:
    """Return the rows of ``selection`` under ``split``."""
    source, rows = config.source, selection.index.rows
    attributes = rows.attributes
    return HashDataset(
        name=name,
        images=source.images(config.folder, selection.paths),
        labels=selection.labels,
        class_names=selection.class_names,
        multi_label=source.multi_label,
        split=split,
        texts=selection.texts,
        attributes=None if attributes is None else attributes.for_classes(selection.class_names),
        attribute_names=() if attributes is None else attributes.names,
        seen_classes=selection.seen_classes,
        extras={key: values[selection.rows] for key, values in rows.extras.items()},
        picture_key=source.list_key,
    )
