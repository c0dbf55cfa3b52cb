"""Files that claim too much, lead elsewhere or never end: one sentence, exit code 2, in no time.

Each case writes a small file into a folder and gives the words of a command, in which ``{}`` is
that folder, and a part of the sentence that it must say.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse

import main

METRICS = "metrics --query {}/q.npz --database"
TRAIN = "train method=csq backbone=pixels dataset=folder output={}/out runner.device=cpu"
Writer = Callable[[Path], object]
CASES: dict[str, tuple[Writer, str, str]] = {}


def text(name: str, content: str) -> Writer:
    return lambda root: (root / name).write_text(content)


# --- YAML: depth, aliases, size, numbers, references, from wherever YAML is read

ALIASES = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i}: &a{i}\n  <<: [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)
YAML = {
    "brackets": ("a: " + "[" * 100_000, "nests its values deeper than 50"),
    "closed brackets": ("a: " + "[" * 3000 + "]" * 3000, "nests its values deeper than 50"),
    "braces": ("{a: " * 3000 + "1" + "}" * 3000, "nests its values deeper than 50"),
    "indented": ("".join(f"{' ' * i}a:\n" for i in range(200)), "nests its values deeper"),
    "aliases": (ALIASES, "holds more values, with all that aliases repeat"),
    "merges": (MERGES, "holds more values, with all that aliases repeat"),
    "an alias of itself": ("a: &a [1, *a]", "*a holds itself"),
    "an undefined alias": ("a: *b", ".yaml:1: not valid YAML"),
    "many values": ("a: [" + "1, " * 10_001 + "]", "at most 10,000 are read"),
    "a long text": ("a: " + "x" * (2**20 + 1), "of YAML; at most"),
    "digits": ("seed: " + "9" * 5000, "a number of 5000 characters"),
    "references": ("a: x\nb: " + "${a}" * 21, "refers to other keys by ${…} more often"),
}
for name, (content, words) in YAML.items():
    CASES[f"config, {name}"] = (text("c.yaml", content), TRAIN + " --config {}/c.yaml", words)
for name in ("brackets", "aliases", "digits"):
    content, words = YAML[name]
    CASES[f"sweep, {name}"] = (text("c.yaml", content), "sweep {}/c.yaml output={}/out", words)
    CASES[f"method, {name}"] = (text("m.yaml", content), TRAIN + " method={}/m.yaml", words)
for word, words in {
    "bits=" + "[" * 100_000: "the value of 'bits': nests its values deeper",
    "seed=" + "9" * 5000: "the value of 'seed': holds a number of 5000 characters",
    "a" + ".a" * 3000 + "=1": "names a key deeper than 50",
}.items():
    CASES[f"word {word[:10]}"] = (lambda root: None, f"{TRAIN} {word}", words)


# --- npz, npy: what headers claim


def npy(shape: tuple[int, ...], kind: str = "<f8", more: bytes = b"12345678") -> bytes:
    head = repr({"descr": kind, "fortran_order": False, "shape": shape}).encode()
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + more


def npz(name: str, **members: bytes) -> Writer:
    def write(root: Path) -> None:
        with zipfile.ZipFile(root / name, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, data in members.items():
                archive.writestr(f"{member}.npy", data)

    return write


def listed_larger(root: Path) -> None:
    """An npz whose list of members claims 4 GB of the codes as well."""
    npz("d.npz", codes=npy((500_000_000,)))(root)
    data = bytearray((root / "d.npz").read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 4_000_000_128)
    (root / "d.npz").write_bytes(data)


HUGE = (5_000_000_000, 1)
CASES |= {
    "npz of 40 GB": (npz("d.npz", codes=npy(HUGE)), f"{METRICS} {{}}/d.npz", "claims 40.0 GB of"),
    "npz of labels": (
        npz("d.npz", codes=npy((1, 1)), labels=npy(HUGE)), f"{METRICS} {{}}/d.npz", "'labels'",
    ),
    "npz of empty items": (
        npz("d.npz", codes=npy((10**15,), "|V0")), f"{METRICS} {{}}/d.npz", "damaged or made up",
    ),
    "npz of 2^80": (npz("d.npz", codes=npy((2**40, 2**40))), f"{METRICS} {{}}/d.npz", "made up"),
    "npz, negative": (npz("d.npz", codes=npy((-1, 4))), f"{METRICS} {{}}/d.npz", "not a readable"),
    "npz that lists more": (listed_larger, f"{METRICS} {{}}/d.npz", "claims 4.0 GB, packed into"),
    "npy of 40 GB": (
        lambda root: (root / "d.npy").write_bytes(npy(HUGE)), "export {}/d.npy --faiss {}/x",
        "claims 40.0 GB of numbers, but has 8 bytes",
    ),
    "similarity of 40 GB": (
        lambda root: (root / "s.npy").write_bytes(npy(HUGE)),
        f"{METRICS} {{}}/q.npz --similarity {{}}/s.npy", "claims 40.0 GB",
    ),
    "split of 40 GB": (
        npz("s.npz", train=npy(HUGE)),
        f"{TRAIN} dataset.root={{}}/p dataset.split.rule=file dataset.split.file={{}}/s.npz",
        "'train' claims 40.0 GB",
    ),
}  # fmt: skip


# --- MATLAB: sparse matrices and packed variables


def sparse(root: Path) -> None:
    matrix = scipy.sparse.csc_matrix(([1.0], ([5], [3])), shape=(2**31 - 2, 2**20))
    matrix.data[:] = 1
    ones = np.ones((2, 4))
    scipy.io.savemat(root / "m.mat", {"q_img": ones, "r_img": ones, "q_l": ones, "r_l": matrix})


def packed_mat(root: Path) -> None:
    inner = zlib.compress(struct.pack("<II", 14, 4_000_000_000))
    head = b"MATLAB 5.0".ljust(124) + b"\x00\x01IM"
    (root / "m.mat").write_bytes(head + struct.pack("<II", 15, len(inner)) + inner)


def hdf5(name: str, fill: Callable[[h5py.File, Path], object]) -> Writer:
    def write(root: Path) -> None:
        with h5py.File(root / "secret.h5", "w") as file:
            file["codes"], file["labels"] = np.ones((4, 8)), np.arange(4)
        with h5py.File(root / name, "w") as file:
            fill(file, root)

    return write


def mat73_cells(file: h5py.File, _: Path) -> None:
    """Cells that name the same cells, ten times each, twelve times over."""
    refs = file.create_group("#refs#")
    refs["0"] = np.ones((1, 1))
    for i in range(1, 12):
        cells = refs.create_dataset(str(i), (10,), h5py.ref_dtype)
        cells[:] = [refs[str(i - 1)].ref] * 10
    for key in ("q_img", "r_img", "q_l", "r_l"):
        file.create_dataset(key, (1,), h5py.ref_dtype)[0] = refs["11"].ref


CASES |= {
    "sparse .mat": (sparse, "metrics --mat {}/m.mat", "'r_l', [2147483646, 1048576], claims"),
    "packed .mat": (packed_mat, "metrics --mat {}/m.mat", "claims 4.0 GB in"),
    "v7.3 of 10^15": (
        hdf5("m.mat", lambda f, _: f.create_dataset("q_img", (10**9, 10**6), "f8", chunks=(9, 9))),
        "metrics --mat {}/m.mat", "claims 8000000.0 GB",
    ),
    "v7.3, cells": (hdf5("m.mat", mat73_cells), "metrics --mat {}/m.mat", "deeper than 8"),
}  # fmt: skip


# --- HDF5: out of the file, and chunks


def external(file: h5py.File, root: Path) -> None:
    file.create_dataset("codes", (4, 8), "u1", external=[(str(root / "q.npz"), 0, 32)])


def virtual(file: h5py.File, root: Path, source: str = "secret.h5") -> None:
    layout = h5py.VirtualLayout((4, 8), "f8")
    layout[:] = h5py.VirtualSource(str(root / source), "codes", (4, 8))
    file.create_virtual_dataset("codes", layout)
    file["labels"] = np.arange(4)


def linked(file: h5py.File, _: Path) -> None:
    file["codes"] = h5py.ExternalLink("secret.h5", "/codes")


def linked_twice(file: h5py.File, _: Path) -> None:
    file["away"] = h5py.ExternalLink("secret.h5", "/")
    file["codes"] = h5py.SoftLink("/away/codes")


def chunk(file: h5py.File, _: Path) -> None:
    file.create_dataset("codes", (50_000, 1000), "f8", chunks=(50_000, 1000), compression="gzip")
    file["labels"] = np.zeros(50_000, int)


def missing_source(file: h5py.File, root: Path) -> None:
    virtual(file, root, "gone.h5")


for name, (fill, words) in {
    "external link": (linked, "'codes' is a link to another file, which is not followed"),
    "soft link through an external": (linked_twice, "'away' is a link to another file"),
    "external storage": (external, "'codes' has its numbers in another file"),
    "virtual": (virtual, "'/codes' is virtual: its numbers are in other files"),
    "virtual without its source": (missing_source, "'/codes' is virtual"),
    "chunk": (chunk, "in chunks of 400.0 MB, each read as a whole, and 256 MiB are allowed"),
}.items():
    words = words.replace("'codes' has", "'/codes' has")
    CASES[f"metrics, {name}"] = (hdf5("d.h5", fill), f"{METRICS} {{}}/d.h5", words)
    CASES[f"export, {name}"] = (hdf5("d.h5", fill), "export {}/d.h5 --faiss {}/x", words)


# --- numbers


def labelled(labels: np.ndarray) -> Writer:
    codes = np.ones((len(labels), 8))
    return lambda root: np.savez(root / "d.npz", codes=codes, labels=labels)


for kind, number, power in (
    ("f8", 2.0**53, 53), ("f8", 2.0**64, 53), ("f4", 2.0**24, 24), ("f2", 2048, 11),
    ("u8", 2**63, 63),
):  # fmt: skip
    CASES[f"class {number:g} of {kind}"] = (
        labelled(np.array([0, number], kind)), f"{METRICS} {{}}/d.npz", f"from 2^{power} on",
    )  # fmt: skip


# --- what is no file


def pipe(name: str) -> Writer:
    return lambda root: os.mkfifo(root / name)


def listening(root: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        here = os.getcwd()
        os.chdir(root)  # names of sockets are short
        try:
            one.bind("d.npz")
        finally:
            os.chdir(here)


for name, line in {
    "c.yaml": f"{TRAIN} --config {{}}/c.yaml",
    "s.yaml": "sweep {}/s.yaml output={}/out",
    "d.npz": f"{METRICS} {{}}/d.npz",
    "d.h5": "export {}/d.h5 --faiss {}/x",
    "l.npy": f"{METRICS} {{}}/q.npz --query-labels {{}}/l.npy",
    "m.mat": "metrics --mat {}/m.mat",
    "codes.h5": "metrics --run {}",
    "p.csv": f"{TRAIN} dataset.root={{}} dataset.csv=p.csv",
    "p.zip": f"{TRAIN} dataset.root={{}} dataset.archive=p.zip",
}.items():
    CASES[f"pipe {name}"] = (pipe(name), line, "is a pipe, not a file")
CASES |= {
    "a socket": (listening, f"{METRICS} {{}}/d.npz", "is a socket, not a file"),
    "a device": (lambda root: None, f"{METRICS} /dev/zero", "is a device, not a file"),
    "a pipe among pictures": (
        pipe("p/ant/9.png"), f"{TRAIN} dataset.root={{}}/p", "it is a pipe, not a file",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bounds(case, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("HASHING_CACHE", str(tmp_path / "cache"))
    np.savez(tmp_path / "q.npz", codes=np.ones((2, 8)), labels=np.arange(2))
    for name in ("ant", "bee"):
        (tmp_path / "p" / name).mkdir(parents=True)
        for i in range(12):
            (tmp_path / "p" / name / f"{i}.ppm").write_bytes(b"P6 2 2 255\n" + bytes([i] * 12))
    write, line, expected = CASES[case]
    write(tmp_path)
    words = [word.replace("{}", str(tmp_path)) for word in line.split()]
    signal.alarm(60)  # a hang is one of the faults
    try:
        code = main.main(words)
    finally:
        signal.alarm(0)
    out, err = capfd.readouterr()
    sentences = [line for line in err.splitlines() if not line.startswith("warning")]
    errors = [line for line in sentences if line.startswith("error: ")]
    assert code == 2 and "Traceback" not in err, err[-2000:]
    assert len(errors) == 1 and sentences[-1] == errors[0], err[-2000:]
    assert expected in errors[0]
