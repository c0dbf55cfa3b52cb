"""Unpacking: what honest archives hold, what hostile ones try, and going on after a stop."""

import io
import os
import stat
import tarfile
import zipfile
from pathlib import PurePosixPath

import pytest

from utils import archives
from utils.archives import is_archive, unpack, unpacked_size
from utils.errors import UserError

FILES = {"a/one.txt": b"one", "a/b/two.bin": bytes(1000), "three": b""}


def make(path, files=FILES, kind="zip"):
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(path, f"w:{kind}") as archive:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("kind", ["zip", "", "gz", "bz2", "xz"])
def test_honest_archives(tmp_path, kind):
    archive = make(
        tmp_path / "x.archive", {**FILES, "__MACOSX/a/._one.txt": b"", "./d/e": b"e"}, kind
    )
    assert unpack(archive, tmp_path / "out", 10_000) == 4
    assert tree(tmp_path / "out") == {**FILES, "d/e": b"e"}


def test_names():
    assert is_archive("a.ZIP") and is_archive("a.tar.gz") and is_archive("a.tgz")
    assert not is_archive("a.mat") and not is_archive("a.rar")


@pytest.mark.parametrize("kind", ["zip", "gz"])
@pytest.mark.parametrize(
    "name", ["../out.txt", "a/../../out.txt", "/tmp/out.txt", "..\\out.txt", "C:\\out.txt", "C:out"]
)
def test_nothing_leaves_the_folder(tmp_path, kind, name):
    archive = make(tmp_path / "x", {"fine.txt": b"", name: b"gotcha"}, kind)
    with pytest.raises(UserError, match="outside of its folder"):
        unpack(archive, tmp_path / "deep" / "out", 10_000)
    assert not [path for path in tmp_path.rglob("*out*") if path.is_file()]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_in_a_tar(tmp_path, kind):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        info = tarfile.TarInfo("door")
        info.type, info.linkname = kind, "/etc"
        archive.addfile(info)
        info = tarfile.TarInfo("door/passwd")
        archive.addfile(info, io.BytesIO(b""))
    with pytest.raises(UserError, match="'door', a link or a device"):
        unpack(tmp_path / "x.tar", tmp_path / "out", 10_000)
    assert not os.path.lexists(tmp_path / "out" / "door")


def test_links_in_a_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        info = zipfile.ZipInfo("door")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc")
    with pytest.raises(UserError, match="a link or a device"):
        unpack(tmp_path / "x.zip", tmp_path / "out", 10_000)


@pytest.mark.parametrize("kind", ["zip", "gz"])
def test_bombs(tmp_path, kind, monkeypatch):
    archive = make(tmp_path / "x", {"fine": b"x", "zeros": bytes(1_000_000)}, kind)
    with pytest.raises(UserError, match="999,999|1,000,001"):
        unpack(archive, tmp_path / "out", 999_999)
    assert not (tmp_path / "out" / "zeros").exists()
    monkeypatch.setattr(archives, "MOST_MEMBERS", 1)
    with pytest.raises(UserError, match="more than"):
        unpack(archive, tmp_path / "out", 10_000_000)


@pytest.mark.parametrize("kind", ["zip", "gz"])
def test_a_cut_archive(tmp_path, kind):
    archive = make(tmp_path / "x", {"a": os.urandom(50_000), "b": os.urandom(50_000)}, kind)
    archive.write_bytes(archive.read_bytes()[:60_000])
    with pytest.raises(UserError, match="damaged or cut short|is no zip and no tar"):
        unpack(archive, tmp_path / "out", 10_000_000)
    for data in tree(tmp_path / "out").values() if (tmp_path / "out").exists() else []:
        assert len(data) == 50_000  # no half file under its own name


def test_a_changed_byte_in_a_zip(tmp_path):
    archive = make(tmp_path / "x.zip", {"a": os.urandom(5000)})
    data = bytearray(archive.read_bytes())
    data[2000] ^= 1
    archive.write_bytes(data)
    with pytest.raises(UserError, match="damaged"):
        unpack(archive, tmp_path / "out", 10_000)
    assert not (tmp_path / "out" / "a").exists()


def test_a_page_in_place_of_an_archive(tmp_path):
    (tmp_path / "x.zip").write_text("<html>Not found</html>")
    with pytest.raises(UserError, match="no zip and no tar"):
        unpack(tmp_path / "x.zip", tmp_path / "out", 10_000)
    assert unpacked_size(tmp_path / "x.zip", tmp_path) is None


@pytest.mark.parametrize("kind", ["zip", "gz"])
def test_what_is_there_is_not_written_again(tmp_path, kind):
    archive, out = make(tmp_path / "x", kind=kind), tmp_path / "out"
    unpack(archive, out, 10_000)
    before = (out / "a" / "one.txt").stat().st_mtime_ns
    (out / "a" / "b" / "two.bin").write_bytes(b"half")
    (out / "a" / "b" / ".two.bin.partial").write_bytes(b"left by a kill")
    if kind == "zip":
        assert unpacked_size(archive, out) == 1000
    unpack(archive, out, 10_000)
    assert tree(out) == FILES
    assert (out / "a" / "one.txt").stat().st_mtime_ns == before


def test_a_folder_in_the_way(tmp_path):
    (tmp_path / "out" / "three").mkdir(parents=True)
    with pytest.raises(UserError, match="is a folder"):
        unpack(make(tmp_path / "x.zip"), tmp_path / "out", 10_000)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_headers_are_bounded_before_they_are_read(tmp_path, kind):
    header = tarfile.TarInfo("names")
    header.type, header.size = kind, 2**33 - 1
    archive = tmp_path / "x.tar"
    archive.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    with pytest.raises(UserError, match="holds headers of 8,589,934,591 bytes"):
        unpack(archive, tmp_path / "out", 2**40)


def test_many_headers_count_to_the_limit(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for i in range(4):
            archive.addfile(tarfile.TarInfo("/".join([f"{i}", *["n" * 90] * 10])))
    assert unpack(tmp_path / "x.tar", tmp_path / "out", 10_000) == 4
    with pytest.raises(UserError, match="more than names of files need"):
        unpack(tmp_path / "x.tar", tmp_path / "other", 3_000)


def test_a_member_that_ends_early_gets_no_name(tmp_path):
    for size in (4, 9):  # less or more than the archive states
        member = archives._Member(PurePosixPath("a"), 5, lambda size=size: io.BytesIO(bytes(size)))
        with pytest.raises(EOFError, match="'a' is cut short"):
            archives._write(tmp_path / "x.zip", member, tmp_path / "out" / "a")
        assert not tree(tmp_path / "out")
    member = archives._Member(PurePosixPath("a"), 5, lambda: io.BytesIO(b"whole"))
    archives._write(tmp_path / "x.zip", member, tmp_path / "out" / "a")
    assert tree(tmp_path / "out") == {"a": b"whole"}
