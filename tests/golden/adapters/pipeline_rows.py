"""What the releases make of official files, .mat files and lists: rows, labels, texts, splits."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from common.registry import DATASETS
from dataset.base import HashDataset
from dataset.caption_noise import shuffled_captions
from dataset.images import FileImages
from dataset.mat import MatConfig
from dataset.mat import build as build_mat
from dataset.preparation.index import OFFICIAL, Index, check_rows
from dataset.preparation.lists import read_list
from dataset.preparation.prepared_dataset import PreparedConfig
from dataset.preparation.protocol import Protocol, Selection
from dataset.preparation.rows import Rows
from dataset.preparation.selection import draw, select
from dataset.preparation.source import Source
from dataset.sources.cross_modal_protocols import listed_tags, one_sentence
from dataset.sources.zero_shot_protocols import FIELDS
from dataset.splits import SplitConfig
from dataset.tables import one_hot
from tests.golden.adapters.pipeline_texts import equal_texts
from tests.golden.harness import Case, GoldenError, adapter

SHARED_FILES = ("dcmht", "twdh", "dcmht_first")
"""Protocols that read the files of DCMHT's scripts."""


def source_of(name: str) -> Source:
    """Return the source of a prepared dataset."""
    config = DATASETS.get(name).config
    assert config is not None and issubclass(config, PreparedConfig)
    return config.source


def in_memory(dataset: str, rows: Rows) -> Index:
    """Return an index of rows whose pictures nobody has looked at."""
    rows = check_rows(rows, dataset)
    n = len(rows)
    return Index(dataset, OFFICIAL, rows, np.zeros(n, np.int64), np.zeros((n, 16), np.uint8))


def selected(
    name: str, root: Path, protocol: Protocol, classes: tuple[str, ...] | None = None
) -> Selection:
    """Read official files below ``root`` and apply a protocol; ``classes`` in place of its own."""
    source = source_of(name)
    if classes is not None:
        protocol = dataclasses.replace(protocol, classes=classes)
    return select(source, in_memory(name, source.read(root)), protocol, root)


def one_text(texts: list[tuple[str, ...]] | None) -> list[str]:
    """Return the one text of every row."""
    assert texts is not None and all(len(row) == 1 for row in texts)
    return [row[0] for row in texts]


@adapter("pipeline_rows_flickr25k", not_read={"cfg_order": "words", "cfg_repositories": "words"})
def flickr25k_rows(case: Case) -> None:
    """Order, labels by sorted name and texts under every protocol that shares DCMHT's files.

    Annotation files that the case leaves out are written empty.
    """
    from dataset.sources.flickr25k import ANNOTATIONS, CLEAR, IMAGES, LABELS

    numbers, member = case.array("in_ids"), case.array("in_member")
    files = [str(name) for name in case.array("in_annotation_files")]
    classes = tuple(sorted(name.removesuffix(".txt") for name in case.cfg("classes")))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        tags = root / IMAGES / "meta" / "tags"
        tags.mkdir(parents=True)
        (root / ANNOTATIONS).mkdir()
        for name in (*LABELS, *(f"{label}_r1" for label in CLEAR)):
            (root / ANNOTATIONS / f"{name}.txt").write_text("")
        for name, row in zip(files, member, strict=True):
            lines = "".join(f"{number}\n" for number in numbers[row])
            (root / ANNOTATIONS / name).write_text(lines)
        for number, text in zip(numbers, case.array("in_tag_lines"), strict=True):
            (root / IMAGES / f"im{number}.jpg").touch()
            (tags / f"tags{number}.txt").write_text(str(text), encoding="utf-8")
        for name in SHARED_FILES:
            protocol = source_of("flickr25k").protocol(name)
            chosen = selected("flickr25k", root, protocol, classes)
            keys = [int(chosen.index.rows.keys[row]) for row in chosen.rows]
            case.equal("out_ids", keys)
            case.equal("out_labels_by_sorted_name", chosen.labels)
            equal_texts(case, "out_captions", one_text(chosen.texts))


@adapter("pipeline_rows_coco", not_read={"cfg_order": "words", "cfg_repositories": "words"})
def coco_rows(case: Case) -> None:
    """Order, part, labels, captions and their order, under every protocol that shares them."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "annotations").mkdir()
        kinds = [{"id": int(i), "name": f"kind {i}"} for i in case.array("in_category_ids")]
        for part in ("train", "val"):
            images = [
                {"id": int(i), "file_name": f"{i:012d}.jpg"}
                for i in case.array(f"in_{part}_images")
            ]
            notes = [
                {"image_id": int(image), "category_id": int(kind)}
                for image, kind in case.array(f"in_{part}_instances")
            ]
            told = zip(
                case.array(f"in_{part}_captions_image"), case.array(f"in_{part}_captions"),
                strict=True,
            )  # fmt: skip
            captions = [  # ids descend, so that only the file's order can be the order
                {"id": -number, "image_id": int(image), "caption": str(text)}
                for number, (image, text) in enumerate(told)
            ]
            for kind, annotations in (("instances", notes), ("captions", captions)):
                content = {"images": images, "categories": kinds, "annotations": annotations}
                file = root / "annotations" / f"{kind}_{part}2017.json"
                file.write_text(json.dumps(content), encoding="utf-8")
        for name in SHARED_FILES:
            _compare_coco(case, selected("coco", root, source_of("coco").protocol(name)))


def _compare_coco(case: Case, chosen: Selection) -> None:
    rows, texts = chosen.index.rows, chosen.texts
    assert texts is not None
    case.equal("out_ids", [int(rows.keys[row]) for row in chosen.rows])
    equal_texts(case, "out_part", [path.partition("2017/")[0] for path in chosen.paths])
    case.equal("out_labels", chosen.labels)
    case.equal("out_caption_count", [len(row) for row in texts])
    width = case.array("out_captions").shape[1]
    equal_texts(case, "out_captions", [[*row, *[""] * (width - len(row))] for row in texts])


@adapter(
    "pipeline_rows_nuswide",
    not_read={
        "cfg_order": "words", "cfg_repositories": "words",
        "cfg_unused_offset": "how two releases write their list of unused rows; ours needs none",
    },
)  # fmt: skip
def nuswide_rows(case: Case) -> None:
    """Rows, labels and texts; the unused rows are those without one of the 21 concepts.

    The recorded lines of tags begin with running numbers, the official ones with Flickr's.
    """
    names = [str(name) for name in case.array("in_images")]
    source = source_of("nuswide")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for part in ("ImageList", "NUS_WID_Tags", "Groundtruth/AllLabels", "images"):
            (root / part).mkdir(parents=True)
        (root / "ImageList" / "Imagelist.txt").write_text("".join(f"{n}\r\n" for n in names))
        lines = [
            f"{source.list_key(name.replace(chr(92), '/'))} {str(line).partition(' ')[2]}\n"
            for name, line in zip(names, case.array("in_tag_lines"), strict=True)
        ]
        (root / "NUS_WID_Tags" / "All_Tags.txt").write_text("".join(lines), encoding="utf-8")
        (root / "NUS_WID_Tags" / "TagList1k.txt").write_text("\n")
        columns = zip(case.array("in_label_files"), case.array("in_labels").T, strict=True)
        for file, column in columns:
            text = "".join(f"{bit}\n" for bit in column)
            (root / "Groundtruth" / "AllLabels" / str(file)).write_text(text)
        for name in SHARED_FILES:
            chosen = selected("nuswide", root, source.protocol(name))
            case.equal("out_rows", chosen.rows)
            case.equal("out_labels", chosen.labels)
            equal_texts(case, "out_captions", one_text(chosen.texts))
            unused = np.setdiff1d(np.arange(len(names)), chosen.rows)
            if sorted(case.array("in_unused").tolist()) != unused.tolist():
                raise GoldenError(f"{case.source}: other rows are unused")
            texts = protocol_texts(source.protocol(name))
            case.agree("text_when_none", texts)


def protocol_texts(protocol: Protocol) -> str:
    """Return the text of a row without one under a protocol."""
    return protocol.texts.when_none if protocol.texts else ""


@adapter(
    "pipeline_rows_mith",
    not_compared={"out_*_unlisted_tag_raises": "ours leaves such a tag out, and goes on"},
    not_read={"cfg_*_usual_tags": "the length of lists that the case does not hold"},
)
def mith_rows(case: Case) -> None:
    """Texts of listed tags, one sentence of COCO's captions; rows without a label go afterwards."""
    for name in ("flickr25k", "nuswide"):
        tags = [str(line).split(",") for line in case.array(f"in_{name}_lines")]
        listed = {tag for row in tags for tag in row}  # the recorded lines hold no other
        texts = [listed_tags([*row, "an unlisted tag"], listed) for row in tags]
        equal_texts(case, f"out_{name}_captions", one_text(texts))
        case.equal(f"out_{name}_tag_matrix_sum", [len(set(row) & listed) for row in tags])
        case.equal(f"out_{name}_label_matrix", case.array(f"in_{name}_labels"))
    captions = [str(line).split(";") for line in case.array("in_coco_lines")]
    labels = case.array("in_coco_labels").astype(np.uint8)
    keys = tuple(str(row) for row in range(len(captions)))
    rows = Rows(
        keys, keys, labels, tuple(f"kind {c}" for c in range(labels.shape[1])),
        texts=tuple(map(tuple, captions)),
        variants={"mith": one_sentence(captions, case.cfg("coco_python_seed"))},
    )  # fmt: skip
    source = source_of("coco")
    chosen = select(source, in_memory("coco", rows), source.protocol("mith"), Path())
    case.equal("out_coco_rows", chosen.rows)
    case.equal("out_coco_label_matrix", chosen.labels)
    equal_texts(case, "out_coco_captions", one_text(chosen.texts))


def mat_dataset(case: Case, style: str, root: Path, seed: int) -> HashDataset:
    """Write the case's .mat files with captions in one style, and read them."""
    texts, counts = case.array("in_captions"), case.array("in_caption_count")
    n = len(texts)
    np.save(root / "index.npy", np.zeros((n, 1, 1, 3), np.uint8))
    scipy.io.savemat(root / "label.mat", {"category": case.array("in_labels")})
    first = [str(row[0]) for row in texts]
    file, width = "caption.mat", max(map(len, first))
    if style == "txt":
        file = "caption.txt"
        lines = [f"{' '.join(text.split())}\n" for text in first]  # a line takes no line break
        (root / file).write_text("".join(lines), encoding="utf-8")
    elif style == "cells":
        cells = np.empty((1, n), object)
        for row in range(n):
            cells[0, row] = np.array([str(text) for text in texts[row, : counts[row]]])
        scipy.io.savemat(root / file, {"caption": cells})
    elif style == "column":
        scipy.io.savemat(root / file, {"caption": np.array(first, f"<U{width}")[:, None]})
    elif style == "flat":
        scipy.io.savemat(root / file, {"caption": np.array(first, f"<U{width}")})
    else:
        raise GoldenError(f"{case.source}: nobody knows captions in the style '{style}'")
    sizes = SplitConfig("permutation", seed, case.cfg("query"), case.cfg("train"))
    config = MatConfig(str(root), "index.npy", file, on_unlabelled="keep", split=sizes)
    return build_mat(config, "mat")


@adapter(
    "pipeline_split_dcmht", "pipeline_split_toolkit", "pipeline_split_mith", "pipeline_split_vtph"
)
def mat_splits(case: Case) -> None:
    """Rows of every part, their labels and first captions, in every style of captions."""
    for style in case.cfg("styles"):
        with tempfile.TemporaryDirectory() as folder:
            dataset = mat_dataset(case, style, Path(folder), case.cfg("seed"))
        assert dataset.texts is not None
        for part in ("query", "train", "database"):
            rows = getattr(dataset.split, part)
            case.equal(f"out_{part}", rows)
            case.equal(f"out_{part}_labels", dataset.labels[rows])
            texts = [dataset.texts[row][0] for row in rows]
            equal_texts(case, f"out_{part}_first_caption_{style}", texts)
    if "out_noise_caption_of_row" in case:
        positions = np.arange(case.cfg("train"))
        share, seed = case.cfg("noise_ratio"), case.cfg("noise_python_seed")
        case.equal("out_noise_caption_of_row", shuffled_captions(positions, share, seed))


@adapter("pipeline_split_cifar10", not_read={"cfg_note": "words"})
def cifar10_splits(case: Case) -> None:
    """Rows of DeepHash-pytorch's protocols and FIRe's; of ``cifar10-2`` sizes, on 60,000 rows."""
    labels = case.array("in_labels")
    seed = case.cfg("numpy_seed")
    for name, ours in (("deephash_cifar10", "cifar10"), ("deephash_cifar10_1", "cifar10-1"),
                       ("fire_ep1", "fire_ep1")):  # fmt: skip
        split = drawn(labels, ours, seed)
        for part in ("query", "train", "database"):
            case.equal(f"out_{name}_{part}", getattr(split, part))
    whole = drawn(np.repeat(np.arange(10), 6000), "cifar10-2", seed)
    sizes = [len(whole.query), len(whole.train), len(whole.database)]
    case.equal("out_deephash_cifar10_2_sizes", sizes)
    same = np.array_equal(whole.database, whole.train)
    case.equal("out_deephash_cifar10_2_database_is_train", same)


def drawn(labels: np.ndarray, name: str, seed: int) -> Any:
    """Draw a protocol of CIFAR-10 over rows of these classes."""
    source = source_of("cifar10")
    keys = tuple(str(row) for row in range(len(labels)))
    names = tuple(f"kind {c}" for c in range(10))
    index = in_memory("cifar10", Rows(keys, keys, one_hot(labels, 10), names))
    protocol = dataclasses.replace(source.protocol(name), seed=seed)
    return draw(select(source, index, protocol, Path()), protocol)


@adapter("pipeline_lists", not_read={"cfg_pzsh_release": "words"})
def list_lines(case: Case) -> None:
    """Paths below the lists' root, labels, features, and which lines are skipped."""
    case.agree("pzsh_train_needs_fields", FIELDS["train"])
    case.agree("pzsh_test_needs_fields", FIELDS["query"])
    with tempfile.TemporaryDirectory() as folder:
        for name, lines, fields in (
            ("deephash", "deephash", 0), ("pzsh_train", "pzsh", FIELDS["train"]),
            ("pzsh_test", "pzsh", FIELDS["query"]),
        ):  # fmt: skip
            file = Path(folder) / f"{name}.txt"
            text = "".join(str(line) for line in case.array(f"in_{lines}_lines"))
            file.write_text(text, encoding="utf-8")
            listed = read_list(file, fields)
            recorded = case.array(f"out_{name}_paths")
            first = recorded[0][recorded[0] > 0]
            root = "".join(map(chr, first)).removesuffix(listed.paths[0])
            images = FileImages(listed.paths, Path(root))
            equal_texts(case, f"out_{name}_paths", [images.name(r) for r in range(len(listed))])
            case.equal(f"out_{name}_labels", listed.labels)
            if f"out_{name}_features" in case:
                case.equal(f"out_{name}_features", listed.features)
