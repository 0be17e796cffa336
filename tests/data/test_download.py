import contextlib
import fcntl
import hashlib
import logging
import re
import socket
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from featbench.data import download as module
from featbench.data.checksums import has_checksum
from featbench.data.partial_file import PartialFile
from featbench.errors import DataError, DownloadError

CONTENT = bytes(range(256)) * 1200
"""Several blocks."""

OTHER = CONTENT[::-1]

download = partial(module.download, timeout=0.2, attempts=4, pause=0.0)


def sha256(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Handler(BaseHTTPRequestHandler):
    """Answers the first request by the server's first script, and so on; the last one answers all that follow."""

    def do_GET(self):
        number = len(self.server.asked)
        self.server.asked.append(dict(self.headers))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.server.scripts[min(number, len(self.server.scripts) - 1)](self)

    def head(self, status, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, scripts):
        super().__init__(("127.0.0.1", 0), Handler)
        self.scripts, self.asked, self.over = scripts, [], threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/file.gz"

    @property
    def ranges(self):
        return [asked.get("Range") for asked in self.asked]


@pytest.fixture
def serve(monkeypatch):
    """Start a server that answers by scripts."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    servers = []

    def serve(*scripts):
        server = Server(scripts)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return server

    yield serve
    for server in servers:
        server.over.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "set" / "file.gz"


def around(path):
    return sorted(entry.name for entry in path.parent.iterdir()) if path.parent.exists() else []


# How a server may answer.


def honest(content=CONTENT, *, up_to=None, then="close", **headers):
    """Honour Range and If-Range; send bytes up to a position only, then close the connection or fall silent."""

    def answer(handler):
        asked, version = handler.headers.get("Range"), handler.headers.get("If-Range")
        known = [headers.get("ETag"), headers.get("Last_Modified")]
        start = int(asked[6:-1]) if asked and (version is None or version in known) else 0
        if start >= len(content):
            handler.head(416, Content_Range=f"bytes */{len(content)}")
            return
        extent = {"Content_Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        handler.head(206 if start else 200, Content_Length=len(content) - start, **extent, **headers)
        handler.wfile.write(content[start:up_to])
        if then == "stall":
            handler.wfile.flush()
            handler.server.over.wait(5)

    return answer


def plain(content=CONTENT, claimed=None, up_to=None):
    """Send the whole, whatever was asked for, and perhaps announce another length."""

    def answer(handler):
        handler.head(200, Content_Length=len(content) if claimed is None else claimed)
        handler.wfile.write(content[:up_to])

    return answer


def without_length(content=CONTENT, **headers):
    def answer(handler):
        handler.head(200, **headers)
        handler.wfile.write(content)

    return answer


def chunked(content=CONTENT, *, end=True):
    def answer(handler):
        handler.head(200, Transfer_Encoding="chunked")
        for start in range(0, len(content), 50_000):
            block = content[start : start + 50_000]
            handler.wfile.write(f"{len(block):x}\r\n".encode() + block + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n" if end else b"")

    return answer


def endless(handler):
    handler.head(200)
    while not handler.server.over.is_set():
        handler.wfile.write(bytes(10_000))


def partial_answer(content, extent, up_to=None):
    """Answer 206 with any Content-Range."""

    def answer(handler):
        ranges = {} if extent is None else {"Content_Range": extent}
        handler.head(206, Content_Length=len(content), **ranges)
        handler.wfile.write(content[:up_to])

    return answer


def status(code, **headers):
    return lambda handler: handler.head(code, Content_Length=0, **headers)


def to(url):
    return status(302, Location=url)


def hang_up(handler):
    handler.connection.shutdown(socket.SHUT_RDWR)


# What is fetched.


@pytest.mark.parametrize("script", [honest(), plain(), without_length(), chunked()])
@pytest.mark.parametrize("checksum", [sha256(CONTENT), sha256(CONTENT).upper().replace("SHA", "sha"), "md5"])
def test_a_file_is_fetched(serve, path, script, checksum):
    server = serve(script)
    seen = []
    checksum = f"md5:{hashlib.md5(CONTENT).hexdigest()}" if checksum == "md5" else checksum
    assert download(server.url, path, checksum, lambda *far: seen.append(far))
    assert path.read_bytes() == CONTENT
    assert around(path) == ["file.gz"]
    assert seen[0][0] == 0
    assert seen[-1][0] == len(CONTENT)
    assert seen[-1][1] in (len(CONTENT), None)
    assert seen == sorted(seen)
    assert (server.ranges, server.asked[0]["Accept-Encoding"]) == ([None], "identity")


def test_a_file_that_is_there_is_not_fetched(path):
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    assert not download("http://127.0.0.1:9/nobody", path, sha256(CONTENT))
    assert around(path) == ["file.gz"]


def test_a_wrong_file_is_named_and_replaced_once_the_right_one_is_there(serve, path, caplog):
    path.parent.mkdir()
    path.write_bytes(b"wrong")
    seen = []
    with caplog.at_level(logging.WARNING, "featbench"):
        assert download(serve(honest()).url, path, sha256(CONTENT), lambda *_: seen.append(path.read_bytes()))
    assert set(seen) == {b"wrong"}
    assert path.read_bytes() == CONTENT
    assert str(path) in caplog.text
    assert sha256(CONTENT) in caplog.text


@pytest.mark.parametrize("script", [plain(OTHER), status(404), status(500), honest(up_to=70_000), hang_up, endless])
def test_a_wrong_file_is_kept_where_no_right_one_comes(serve, path, script):
    path.parent.mkdir()
    path.write_bytes(b"wrong")
    with pytest.raises(DownloadError):
        download(serve(script).url, path, sha256(CONTENT), limit=10**6)
    assert path.read_bytes() == b"wrong"


def test_bytes_are_taken_as_they_come_whatever_encoding_is_claimed(serve, path):
    # A server that calls a file.gz "encoded": the published file is what travels.
    assert download(serve(without_length(Content_Encoding="gzip")).url, path, sha256(CONTENT))
    assert path.read_bytes() == CONTENT


# What is resumed.


@pytest.mark.parametrize("then", ["close", "stall"])
def test_a_connection_that_dies_is_taken_up_where_it_was(serve, path, then):
    cuts = [honest(up_to=position, then=then) for position in (70_000, 200_000)]
    server = serve(*cuts, honest())
    assert download(server.url, path, sha256(CONTENT))
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=70000-", "bytes=200000-"]
    assert around(path) == ["file.gz"]


def test_a_server_that_ignores_ranges_starts_anew(serve, path):
    server = serve(plain(up_to=100_000), plain())
    assert download(server.url, path, sha256(CONTENT))
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-"]


@pytest.mark.parametrize(
    "first, second, sent",
    [
        ({"ETag": '"1"'}, {"ETag": '"2"'}, '"1"'),
        ({"ETag": 'W/"1"', "Last_Modified": "Monday"}, {"ETag": 'W/"1"', "Last_Modified": "Tuesday"}, "Monday"),
    ],
)
def test_a_file_that_changed_meanwhile_is_fetched_anew(serve, path, first, second, sent):
    server = serve(honest(OTHER, up_to=100_000, **first), honest(**second))
    assert download(server.url, path, sha256(CONTENT))
    assert [asked.get("If-Range") for asked in server.asked] == [None, sent]
    assert path.read_bytes() == CONTENT


def test_a_file_that_did_not_change_is_resumed(serve, path):
    server = serve(honest(up_to=100_000, ETag='"1"'), honest(ETag='"1"'))
    assert download(server.url, path, sha256(CONTENT))
    assert server.ranges == [None, "bytes=100000-"]
    assert server.asked[1]["If-Range"] == '"1"'
    assert around(path) == ["file.gz"]


def test_a_weak_tag_alone_says_nothing(serve, path):
    server = serve(honest(up_to=100_000, ETag='W/"1"'), honest())
    assert download(server.url, path, sha256(CONTENT))
    assert "If-Range" not in server.asked[1]


def test_a_server_that_goes_on_with_another_file_is_asked_anew(serve, path):
    wrong = partial_answer(OTHER[100_000:], f"bytes 100000-{len(OTHER) - 1}/{len(OTHER)}")
    server = serve(honest(up_to=100_000, ETag='"1"'), wrong, honest(ETag='"2"'))
    assert download(server.url, path, sha256(CONTENT))
    assert server.ranges == [None, "bytes=100000-", None]


def test_the_tag_is_remembered_where_the_rest_comes_without(serve, path):
    rest = partial_answer(CONTENT[100_000:], f"bytes 100000-{len(CONTENT) - 1}/{len(CONTENT)}", up_to=50_000)
    server = serve(honest(up_to=100_000, ETag='"1"'), rest, honest(ETag='"1"'))
    assert download(server.url, path, sha256(CONTENT))
    assert [asked.get("If-Range") for asked in server.asked] == [None, '"1"', '"1"']
    assert server.ranges[2] == "bytes=150000-"


def test_no_more_is_taken_than_was_announced(serve, path):
    more = partial_answer(CONTENT[100_000:] + b"more", f"bytes 100000-{len(CONTENT) - 1}/{len(CONTENT)}")
    server = serve(honest(up_to=100_000), more)
    assert download(server.url, path, sha256(CONTENT))
    assert (path.read_bytes(), len(server.asked)) == (CONTENT, 2)


@pytest.mark.parametrize("extent", [None, "bytes 5-9/10", f"bytes 100001-307199/{len(CONTENT)}", "nonsense"])
def test_a_part_that_was_not_asked_for_is_not_taken(serve, path, extent):
    server = serve(honest(up_to=100_000), partial_answer(CONTENT[100_000:], extent), honest())
    assert download(server.url, path, sha256(CONTENT))
    assert server.ranges == [None, "bytes=100000-", None]


def test_a_part_of_a_whole_of_unknown_length_is_taken(serve, path):
    server = serve(honest(up_to=100_000), partial_answer(CONTENT[100_000:], f"bytes 100000-{len(CONTENT) - 1}/*"))
    assert download(server.url, path, sha256(CONTENT))
    assert path.read_bytes() == CONTENT


def test_a_rest_that_does_not_fit_is_fetched_anew(serve, path):
    server = serve(honest(OTHER, up_to=100_000), honest(), honest())
    assert download(server.url, path, sha256(CONTENT))
    assert server.ranges == [None, "bytes=100000-", None]


def test_an_interrupted_download_is_resumed_by_the_next_call(serve, path):
    server = serve(honest(ETag='"1"'))

    def interrupt(done, _):
        if done > 70_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(server.url, path, sha256(CONTENT), interrupt)
    assert around(path) == ["file.gz.part", "file.gz.part.version"]
    size = path.with_name("file.gz.part").stat().st_size
    assert 70_000 < size < len(CONTENT)
    seen = []
    assert download(server.url, path, sha256(CONTENT), lambda *far: seen.append(far))
    assert server.ranges == [None, f"bytes={size}-"]
    assert (server.asked[1]["If-Range"], seen[0]) == ('"1"', (size, len(CONTENT)))
    assert path.read_bytes() == CONTENT
    assert around(path) == ["file.gz"]


def test_a_part_that_is_the_whole_needs_no_server(serve, path):
    path.parent.mkdir()
    path.with_name("file.gz.part").write_bytes(CONTENT)
    server = serve(honest())
    assert download(server.url, path, sha256(CONTENT))
    assert (path.read_bytes(), around(path), server.asked) == (CONTENT, ["file.gz"], [])


def test_a_part_that_is_longer_than_the_file_is_dropped(serve, path):
    path.parent.mkdir()
    path.with_name("file.gz.part").write_bytes(CONTENT + b"more")
    server = serve(honest())
    assert download(server.url, path, sha256(CONTENT))
    assert server.ranges == [f"bytes={len(CONTENT) + 4}-", None]  # the first was answered 416
    assert path.read_bytes() == CONTENT


def test_attempts_are_numbered_and_what_arrived_is_kept(serve, path):
    server = serve(honest(up_to=70_000), honest(up_to=80_000), status(503))
    with pytest.raises(DownloadError) as caught:
        download(server.url, path, sha256(CONTENT))
    assert len(server.asked) == 4
    part = path.with_name("file.gz.part")
    assert part.read_bytes() == CONTENT[:80_000]
    said = ("503", "4 of 4", "80000 bytes", str(part), f"by hand to {path}", server.url)
    assert all(words in str(caught.value) for words in said)


def test_pauses_grow(serve, path, monkeypatch):
    slept = []
    monkeypatch.setattr(module.time, "sleep", slept.append)
    with pytest.raises(DownloadError):
        download(serve(status(500)).url, path, sha256(CONTENT), pause=0.5)
    assert slept == [0.5, 1.0, 2.0]


# Lengths that lie.


def test_a_length_that_is_too_long_is_believed_less_than_the_checksum(serve, path):
    server = serve(plain(claimed=len(CONTENT) + 10))
    assert download(server.url, path, sha256(CONTENT))
    assert (path.read_bytes(), len(server.asked)) == (CONTENT, 1)


def test_a_length_that_is_too_short_ends_the_file(serve, path):
    server = serve(plain(claimed=1000))
    with pytest.raises(DownloadError, match="its 1000 bytes do not have the checksum"):
        download(server.url, path, sha256(CONTENT))
    assert (around(path), len(server.asked)) == ([], 1)


def test_chunks_that_end_early_are_resumed(serve, path):
    server = serve(chunked(CONTENT[:100_000], end=False), honest())
    assert download(server.url, path, sha256(CONTENT))
    assert server.ranges == [None, "bytes=100000-"]


@pytest.mark.parametrize("script", [endless, chunked(bytes(600_000)), without_length(bytes(500_001))])
def test_a_body_without_end_is_left(serve, path, script):
    server = serve(script)
    with pytest.raises(DownloadError, match="does not end after 500000 bytes"):
        download(server.url, path, sha256(CONTENT), limit=500_000)
    assert (around(path), len(server.asked)) == ([], 1)


def test_a_body_that_just_fits_is_taken(serve, path):
    assert download(serve(without_length()).url, path, sha256(CONTENT), limit=len(CONTENT))


def test_a_file_for_which_the_disk_has_no_room_is_not_begun(serve, path):
    server = serve(plain(claimed=2**60))
    with pytest.raises(DownloadError, match=f"{2**60} bytes, for which the disk has no room"):
        download(server.url, path, sha256(CONTENT))
    assert (around(path), len(server.asked)) == ([], 1)


# What is refused.


@pytest.mark.parametrize("script", [plain(OTHER), without_length(b""), chunked(CONTENT + b"x"), plain(CONTENT[1:])])
def test_a_wrong_checksum_leaves_nothing(serve, path, script):
    server = serve(script)
    with pytest.raises(DownloadError) as caught:
        download(server.url, path, sha256(CONTENT))
    assert around(path) == []
    assert all(words in str(caught.value) for words in (server.url, sha256(CONTENT), "deleted", str(path)))
    assert len(server.asked) == 1


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 451])
def test_a_refusal_is_final(serve, path, code):
    server = serve(status(code), honest())
    with pytest.raises(DownloadError, match=f"answers {code} .*by hand to {re.escape(str(path))}"):
        download(server.url, path, sha256(CONTENT))
    assert (len(server.asked), around(path)) == (1, [])


@pytest.mark.parametrize("script", [status(500), status(503), status(429), hang_up])
def test_what_may_pass_is_tried_again(serve, path, script):
    server = serve(script, script, honest())
    assert download(server.url, path, sha256(CONTENT))
    assert len(server.asked) == 3


def test_a_silent_server_is_left_in_the_end(serve, path):
    server = serve(lambda handler: handler.server.over.wait(5))
    with pytest.raises(DownloadError, match="fell silent, at attempt 2 of 2"):
        download(server.url, path, sha256(CONTENT), attempts=2)
    assert around(path) == []


def test_a_refused_connection_is_named(path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/file.gz"
    with pytest.raises(DownloadError, match=f"{url} cannot be downloaded: .*refused.*by hand to"):
        download(url, path, sha256(CONTENT))
    assert around(path) == []


def test_a_redirect_is_followed_with_its_range(serve, path):
    target = serve(honest())
    server = serve(honest(up_to=100_000), to(target.url))
    assert download(server.url, path, sha256(CONTENT))
    assert target.ranges == ["bytes=100000-"]
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("scheme", ["file", "ftp", "data", "FILE", "gopher"])
def test_a_redirect_to_anything_but_http_is_refused(serve, path, tmp_path, scheme):
    (tmp_path / "local").write_bytes(CONTENT)
    server = serve(to(f"{scheme}://{tmp_path / 'local'}"))
    with pytest.raises(DownloadError, match="302"):
        download(server.url, path, sha256(CONTENT))
    assert (len(server.asked), around(path)) == (1, [])


def test_redirects_in_a_circle_end(serve, path):
    server = serve(lambda handler: to(handler.server.url)(handler))
    with pytest.raises(DownloadError, match="302"):
        download(server.url, path, sha256(CONTENT))
    assert len(server.asked) < 20


@pytest.mark.parametrize(
    "url",
    [
        *("file:///etc/passwd", "ftp://host/file", "/etc/passwd", "host/file", "", "http://", "http:///file"),
        *("http://host:port/", "http://host:99999/", "http://[host/", "http://host/a b", "http://host/\r\nX: y"),
    ],
)
def test_only_addresses_of_http_are_taken(path, url):
    with pytest.raises(DownloadError, match="not an http or https address") as caught:
        download(url, path, sha256(CONTENT))
    assert str(path) in str(caught.value)
    assert not path.parent.exists()


@pytest.mark.parametrize("checksum", ["", "md5:", "md5:12", f"sha1:{'0' * 40}", "0" * 64, f"md5:{'g' * 32}", "md5"])
def test_a_checksum_that_is_none_is_refused(serve, path, checksum):
    server = serve(honest())
    with pytest.raises(DataError, match="neither md5:… nor sha256:…"):
        download(server.url, path, checksum)
    assert (server.asked, around(path)) == ([], [])


def test_checksums_are_of_the_whole_file(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(CONTENT)
    assert has_checksum(file, sha256(CONTENT))
    assert not has_checksum(file, sha256(CONTENT[:-1]))
    with pytest.raises(DataError, match="nowhere cannot be read"):
        has_checksum(tmp_path / "nowhere", sha256(CONTENT))


# Where it is written.


def test_a_folder_in_the_way_is_named(path):
    path.mkdir(parents=True)
    with pytest.raises(DataError, match=f"{path} cannot be read: Is a directory"):
        download("http://127.0.0.1:9/", path, sha256(CONTENT))


def test_a_file_in_place_of_the_folder_is_named(serve, path):
    path.parent.write_bytes(b"")
    server = serve(honest())
    with pytest.raises(DownloadError, match=f"{path.parent} cannot be written .*exists"):
        download(server.url, path, sha256(CONTENT))
    assert server.asked == []


def test_a_disk_that_is_full_is_said_and_what_is_here_is_kept(serve, path, monkeypatch):
    append = PartialFile.append

    def full(part, block):
        if part.size + len(block) > 70_000:
            append(part, block[: 70_000 - part.size])
            raise OSError(28, "No space left on device")
        append(part, block)

    server = serve(honest())
    with monkeypatch.context() as patch:
        patch.setattr(PartialFile, "append", full)
        with pytest.raises(DownloadError, match=r"cannot be written \(No space left on device\)"):
            download(server.url, path, sha256(CONTENT))
    assert len(server.asked) == 1
    assert download(server.url, path, sha256(CONTENT))
    assert server.ranges == [None, "bytes=70000-"]


def test_two_processes_do_not_write_one_file(serve, path):
    path.parent.mkdir()
    server = serve(honest())
    with path.with_name("file.gz.part").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write(b"its own")
        other.flush()
        with pytest.raises(DownloadError, match="another process"):
            download(server.url, path, sha256(CONTENT))
        assert path.with_name("file.gz.part").read_bytes() == b"its own"
    assert server.asked == []


def test_a_file_is_held_as_long_as_it_is_written(serve, path):
    server = serve(honest())

    def again(*_):
        with pytest.raises(DownloadError, match="another process"):
            download(server.url, path, sha256(CONTENT))

    assert download(server.url, path, sha256(CONTENT), again)
    assert len(server.asked) == 1


def test_a_file_that_another_process_has_just_finished_is_not_written_to(serve, path, monkeypatch):
    path.parent.mkdir()
    part = path.with_name("file.gz.part")
    part.write_bytes(CONTENT)
    flock = fcntl.flock

    def late(file, mode):
        part.replace(path)
        flock(file, mode)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(DownloadError, match="another process"):
        download(serve(honest()).url, path, sha256(CONTENT))
    assert path.read_bytes() == CONTENT
