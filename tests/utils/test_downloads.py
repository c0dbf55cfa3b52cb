"""Downloads against a server that cuts off, stalls, changes its mind and answers 404."""

import hashlib
import http.server
import threading
import time
from types import SimpleNamespace

import pytest

from utils import downloads
from utils.downloads import check_checksum, download
from utils.errors import UserError

CONTENT = bytes(range(256)) * 400  # 102,400 bytes
SUM = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves ``server.content``; ``server.faults`` says what each request in turn gets."""

    def do_GET(self):  # noqa: N802 - the library's name
        server = self.server
        server.requests.append(dict(self.headers))
        fault = server.faults.pop(0) if server.faults else "none"
        if isinstance(fault, int):
            return self.send_error(fault)
        start = 0
        requested = self.headers.get("Range")
        same = self.headers.get("If-Range") in (None, server.tag)
        if requested and same and fault != "no_ranges":
            start = int(requested.removeprefix("bytes=").removesuffix("-"))
            if start >= len(server.content):
                return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            end = len(server.content) - 1
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(server.content)}")
        if fault != "no_length":
            self.send_header("Content-Length", str(len(server.content) - start))
        self.send_header("ETag", server.tag)
        self.end_headers()
        body = server.content[start:]
        if fault == "truncate":
            body = body[: len(body) // 2]
        if fault == "stall":
            self.wfile.write(body[:1000])
            self.wfile.flush()
            time.sleep(0.6)
            return None
        return self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.tag, server.faults, server.requests = CONTENT, '"one"', [], []
    server.url = f"http://127.0.0.1:{server.server_port}/data.zip"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(server, tmp_path, **keys):
    target = tmp_path / "new" / "data.zip"
    download(server.url, target, timeout_s=0.2, pause_s=0, **keys)
    assert target.read_bytes() == server.content
    assert [path.name for path in target.parent.iterdir()] == ["data.zip"]
    return target


def test_a_plain_download(server, tmp_path):
    target = fetch(server, tmp_path, size=len(CONTENT), checksum=SUM)
    assert check_checksum(target, SUM) and not check_checksum(target, "md5:" + "0" * 32)
    assert len(server.requests) == 1


@pytest.mark.parametrize("fault", ["truncate", "stall"])
def test_a_broken_line_goes_on_where_it_stopped(server, tmp_path, fault):
    server.faults = [fault, fault, "none"]
    fetch(server, tmp_path, checksum=SUM)
    starts = [request.get("Range", "bytes=0-") for request in server.requests]
    numbers = [int(start[6:-1]) for start in starts]
    assert numbers[0] == 0 < numbers[1] < numbers[2]
    assert server.requests[1]["If-Range"] == server.tag


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.faults = ["truncate", "no_ranges"]
    fetch(server, tmp_path, checksum=SUM)


def test_a_file_that_changed_is_fetched_anew(server, tmp_path):
    server.faults = ["truncate", 503]
    with pytest.raises(UserError, match="503.*kept"):
        fetch(server, tmp_path, attempts=1)
    assert (tmp_path / "new" / "data.zip.part").stat().st_size == len(CONTENT) // 2
    server.content, server.tag = CONTENT[::-1] * 2, '"two"'
    fetch(server, tmp_path)


def test_another_process_goes_on(server, tmp_path):
    server.faults = ["truncate", 500]
    with pytest.raises(UserError):
        fetch(server, tmp_path, attempts=1)
    fetch(server, tmp_path, checksum=SUM)
    assert server.requests[-1]["Range"] == f"bytes={len(CONTENT) // 2}-"


def test_a_part_without_its_note_is_not_trusted(server, tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "data.zip.part").write_bytes(b"something else")
    fetch(server, tmp_path, checksum=SUM)


def test_a_complete_part_only_gets_its_name(server, tmp_path):
    server.faults = ["truncate", 500]
    with pytest.raises(UserError):
        fetch(server, tmp_path, attempts=1)
    (tmp_path / "new" / "data.zip.part").write_bytes(CONTENT)
    fetch(server, tmp_path, checksum=SUM)
    assert len(server.requests) == 2


def test_no_length_given(server, tmp_path):
    server.faults = ["no_length"]
    fetch(server, tmp_path, checksum=SUM)


@pytest.mark.parametrize("code", [403, 404, 410])
def test_refusals_are_final(server, tmp_path, code):
    server.faults = [code] * 9
    with pytest.raises(UserError, match=f"cannot be fetched: the server answers {code}"):
        fetch(server, tmp_path)
    assert len(server.requests) == 1


def test_a_server_that_stays_silent(server, tmp_path):
    server.faults = [500] * 9
    with pytest.raises(UserError, match="the same command goes on"):
        fetch(server, tmp_path, attempts=3)
    assert len(server.requests) == 3


def test_nobody_there(tmp_path):
    with pytest.raises(UserError, match="cannot be fetched"):
        download("http://127.0.0.1:9/x", tmp_path / "x", attempts=1, pause_s=0)


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(UserError, match="does not have the published checksum"):
        fetch(server, tmp_path, checksum="md5:" + "0" * 32)
    assert list((tmp_path / "new").iterdir()) == []


def test_another_size_is_refused_before_it_is_fetched(server, tmp_path):
    with pytest.raises(UserError, match="offers 102,400 bytes, but the published file has 7"):
        fetch(server, tmp_path, size=7)


@pytest.mark.parametrize("kind", ["sha256", "sha1", "md5"])
def test_checksums_in_any_case(kind, tmp_path):
    (tmp_path / "f").write_bytes(CONTENT)
    digest = hashlib.new(kind, CONTENT).hexdigest()
    for text in (digest, digest.upper()):
        assert check_checksum(tmp_path / "f", f"{kind}:{text}")
    assert not check_checksum(tmp_path / "f", f"{kind}:{digest[::-1]}")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"ETag": '"abc"', "Last-Modified": "then"}, '"abc"'),
        ({"ETag": 'W/"abc"', "Last-Modified": "then"}, "then"),  # alike, not the same bytes
        ({"ETag": 'W/"abc"'}, None),
        ({}, None),
    ],
)
def test_what_vouches_for_the_bytes(headers, expected):
    assert downloads._validator(SimpleNamespace(headers=headers)) == expected
