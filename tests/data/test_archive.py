import gzip
import io
import stat
import struct
import tarfile
import tracemalloc
import zipfile
import zlib

import pytest

from featbench.data import archive as module
from featbench.data.archive import extract
from featbench.data.archive_members import CountedStream
from featbench.errors import DataError

CONTENT = {"set/a/1.txt": b"one", "set/b/2.txt": b"two" * 1000, "set/empty": b""}


def tree(folder):
    """Return everything below a folder: files with their content, links with where they point, folders as None."""

    def content(path):
        if path.is_symlink():
            return str(path.readlink())
        return None if path.is_dir() else path.read_bytes()

    return {path.relative_to(folder).as_posix(): content(path) for path in sorted(folder.rglob("*"))}


def files(folder):
    return {name: content for name, content in tree(folder).items() if content is not None}


def member(name, content=b"", kind=tarfile.REGTYPE, **more):
    info = tarfile.TarInfo(name)
    info.size, info.type = len(content), kind
    for key, value in more.items():
        setattr(info, key, value)
    return info, content


def make_tar(path, members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return path


def make_zip(path, members):
    """Write a zip; a name may be a ZipInfo."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def zip_info(name, mode):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


@pytest.fixture
def place(tmp_path):
    """A folder with something in it, and a neighbour that nobody may touch."""
    folder = tmp_path / "work"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "kept").write_bytes(b"mine")
    (folder / "neighbour").write_bytes(b"not yours")
    return folder


@pytest.fixture
def refused(place, tmp_path):
    """Extract what must be refused, into a folder that exists and one that does not; nothing may be different."""

    def refused(archive, *words, **limits):
        before, around = tree(place), set(tmp_path.iterdir())
        for folder in (place / "data", place / "new" / "deep"):
            with pytest.raises(DataError) as caught:
                extract(archive, folder, **limits)
            assert tree(place) == before
            assert set(tmp_path.iterdir()) == around
        message = str(caught.value)
        assert all(word in message for word in (str(archive), *words)), message
        assert message.count("cannot be extracted") == 1
        return message

    return refused


def as_tar(path, content):
    return make_tar(path, [member(name, data) for name, data in content.items()])


def as_tar_gz(path, content):
    return make_tar(path, [member(name, data) for name, data in content.items()], "w:gz")


def as_zip(path, content):
    return make_zip(path, content.items())


WRITERS = pytest.mark.parametrize("write", [as_zip, as_tar, as_tar_gz])


@WRITERS
@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tgz", "x"])
def test_archives_are_known_by_their_content(place, tmp_path, write, name):
    seen = []
    assert extract(write(tmp_path / name, CONTENT), place / "data", seen.append) == 3
    assert files(place / "data") == {"kept": b"mine", **CONTENT}
    assert seen == [1, 2, 3]


@WRITERS
def test_missing_folders_are_made(place, tmp_path, write):
    extract(write(tmp_path / "x", CONTENT), place / "new" / "deep")
    assert files(place / "new" / "deep") == CONTENT


@WRITERS
def test_extracting_again_changes_nothing_and_puts_back_what_is_missing(place, tmp_path, write):
    archive = write(tmp_path / "x", CONTENT)
    extract(archive, place / "data")
    (place / "data/set/a/1.txt").unlink()
    (place / "data/set/a/own.txt").write_bytes(b"my own")
    extract(archive, place / "data")
    assert files(place / "data") == {"kept": b"mine", "set/a/own.txt": b"my own", **CONTENT}


@WRITERS
def test_files_with_other_content_are_never_replaced(place, tmp_path, write):
    (place / "data/set/a").mkdir(parents=True)
    (place / "data/set/a/1.txt").write_bytes(b"ONE")
    (place / "data/set/empty").write_bytes(b"not empty")
    before = tree(place)
    with pytest.raises(DataError, match=r"1\.txt and 1 more would be replaced.*move it away"):
        extract(write(tmp_path / "x", CONTENT), place / "data")
    assert tree(place) == before


@pytest.mark.parametrize("there", ["file for folder", "folder for file", "link to folder", "dangling link"])
def test_what_is_no_plain_file_is_never_replaced_either(place, tmp_path, there):
    (place / "elsewhere").mkdir()
    if there == "file for folder":
        (place / "data/set").write_bytes(b"")
    elif there == "folder for file":
        (place / "data/set/a/1.txt").mkdir(parents=True)
    elif there == "link to folder":
        (place / "data/set").symlink_to(place / "elsewhere")
    else:
        (place / "data/set").symlink_to(place / "nowhere")
    before = tree(place)
    with pytest.raises(DataError, match="would be replaced"):
        extract(as_zip(tmp_path / "x", CONTENT), place / "data")
    assert tree(place) == before


@pytest.mark.parametrize(
    "name",
    [
        *("../evil", "a/../../evil", "..", "a/..", "ROOT/abs", "/ROOT/abs", "C:evil", "c:/evil"),
        *("..\\evil", "a\\b", "\\abs"),
        *("a\nb", "a\x7fb"),
    ],
)
@pytest.mark.parametrize("write", [as_zip, as_tar])
def test_names_that_lead_out_of_the_folder_are_refused(refused, tmp_path, write, name):
    name = name.replace("ROOT", str(tmp_path))  # where code that is wrong would do no harm
    message = refused(write(tmp_path / "x", {"fine": b"", name: b"evil"}), "its name")
    assert repr(name) in message


def test_a_name_that_hides_behind_a_nul_is_refused(refused, tmp_path):
    path = make_zip(tmp_path / "x", [("evilAtxt", b"x")])
    path.write_bytes(path.read_bytes().replace(b"evilAtxt", b"evil\0txt"))
    refused(path, "control characters")


def test_a_file_without_a_name_is_refused(refused, tmp_path):
    refused(as_tar(tmp_path / "x", {"fine": b"", "": b"evil"}), "its name is empty")


def test_an_absolute_name_writes_nothing_where_it_points(refused, tmp_path):
    target = tmp_path / "target"
    refused(as_tar(tmp_path / "x", {str(target): b"evil"}))
    refused(as_zip(tmp_path / "y", {str(target): b"evil"}))
    assert not target.exists()


@pytest.mark.parametrize("kind", ["SYMTYPE", "LNKTYPE", "CHRTYPE", "BLKTYPE", "FIFOTYPE", "GNUTYPE_SPARSE", "CONTTYPE"])
def test_links_devices_and_holes_are_refused_in_tars(refused, tmp_path, place, kind):
    # Even a link that stays inside: nothing that a data set needs, and a file written through it would not.
    link = member("set/link", kind=getattr(tarfile, kind), linkname="kept")
    archive = make_tar(tmp_path / "x", [link, member("set/after", b"x")])
    if kind == "CONTTYPE":  # an old word for a regular file
        assert extract(archive, place / "data") == 2
    else:
        refused(archive, "'set/link'")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_file_cannot_be_written_through_a_link(refused, tmp_path, place, kind, mode):
    out = member("out", kind=kind, linkname=str(place / "neighbour"))
    refused(make_tar(tmp_path / "x", [out, member("out", b"evil")], mode), "'out'", "link")
    folder = member("out", kind=tarfile.SYMTYPE, linkname="..")
    refused(make_tar(tmp_path / "y", [folder, member("out/neighbour", b"evil")], mode), "'out'", "link")


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_links_and_devices_are_refused_in_zips(refused, tmp_path, mode):
    archive = make_zip(tmp_path / "x", [(zip_info("out", mode | 0o777), "../neighbour"), ("out/evil", b"")])
    refused(archive, "'out'", "link")


def test_no_mode_of_an_archive_is_kept(place, tmp_path):
    make_tar(tmp_path / "x", [member("tar", b"x", mode=0o6777), member("dir", kind=tarfile.DIRTYPE, mode=0o2000)])
    make_zip(tmp_path / "y", [(zip_info("zip", stat.S_IFREG | 0o6777), b"x")])
    extract(tmp_path / "x", place / "data")
    extract(tmp_path / "y", place / "data")
    modes = {name: stat.S_IMODE((place / "data" / name).stat().st_mode) for name in ("tar", "zip", "dir", "kept")}
    assert modes["tar"] == modes["zip"] == modes["kept"]
    assert modes["dir"] == stat.S_IMODE((place / "data").stat().st_mode)


@pytest.mark.parametrize(
    "first, second",
    [
        *(("a", "a"), ("a", "./a"), ("a/b", "a//b"), ("a", "A"), ("a/x", "A/y"), ("straße", "STRASSE")),
        *(("caf\u00e9", "cafe\u0301"), ("a", "a/b"), ("a/b", "a")),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_are_one_on_some_machine_are_refused(refused, tmp_path, kind, first, second):
    if kind == "zip":
        archive = make_zip(tmp_path / "x", [(first, b"1"), (second, b"2")])
    else:
        archive = make_tar(tmp_path / "x", [member(first, b"1"), member(second, b"2")])
    refused(archive, repr(second), "its name is that of")


def test_a_folder_may_be_named_more_than_once(place, tmp_path):
    folders = [member(name, kind=tarfile.DIRTYPE) for name in (".", "./a", "a/")]
    assert extract(make_tar(tmp_path / "x", [*folders, member("a/b", b"1"), folders[1]]), place / "data") == 1
    assert files(place / "data") == {"kept": b"mine", "a/b": b"1"}


# Bombs.


@pytest.mark.parametrize("write", [as_zip, as_tar_gz])
def test_a_bomb_is_stopped_by_what_it_unpacks_to(refused, tmp_path, write):
    archive = write(tmp_path / "x", {"small": b"x", "zeros": bytes(2**22)})
    assert archive.stat().st_size < 10_000
    refused(archive, "'zeros'", "more than 1048576 bytes", limit=2**20)


@pytest.mark.parametrize("write", [as_zip, as_tar_gz])
def test_many_files_are_one_bomb(refused, tmp_path, write):
    refused(write(tmp_path / "x", {str(n): bytes(2**18) for n in range(5)}), "'4'", "more than", limit=2**20 + 2**14)


def test_what_is_left_out_is_counted_too(refused, tmp_path):
    refused(as_tar_gz(tmp_path / "x", {"._zeros": bytes(2**22), "more": b""}), "more than 1048576", limit=2**20)


def test_a_stream_is_not_read_backward():
    stream = CountedStream(io.BytesIO(b"abc"), lambda _: None)
    assert (stream.read(2), stream.seek(2).tell()) == (b"ab", 2)
    with pytest.raises(DataError, match="backward"):
        stream.seek(1)


def test_the_limit_follows_from_the_size_of_the_archive(refused, place, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FLOOR", 1000)
    archive = as_zip(tmp_path / "x", {"zeros": bytes(10**6)})
    refused(archive, f"more than {50 * archive.stat().st_size} bytes")
    monkeypatch.setattr(module, "RATIO", 2000)
    monkeypatch.setattr(module, "CEILING", 10**6 - 1)
    refused(archive, "more than 999999 bytes")
    monkeypatch.setattr(module, "CEILING", 10**6)
    assert extract(archive, place / "data") == 1


@WRITERS
def test_too_many_members_are_refused(refused, place, tmp_path, write):
    archive = write(tmp_path / "x", {str(n): b"" for n in range(6)})
    refused(archive, "more than 5 members", members=5)
    assert extract(archive, place / "data", members=6) == 6


def test_files_too_deep_are_refused(refused, place, tmp_path):
    assert extract(as_zip(tmp_path / "x", {"d/" * 31 + "f": b""}), place / "data") == 1
    refused(as_zip(tmp_path / "y", {"d/" * 32 + "f": b""}), "more than 32 folders deep")


def test_a_zip_that_lies_about_a_size_is_refused(refused, tmp_path):
    content = bytes(5000)
    path = make_zip(tmp_path / "x", [("lie", content)])
    honest = path.read_bytes()
    for claimed in (100, 4999, 5001, 2**31):
        path.write_bytes(honest.replace(struct.pack("<I", len(content)), struct.pack("<I", claimed)))
        assert path.read_bytes() != honest
        refused(path, "'lie'", limit=2**20)


def test_members_that_share_their_bytes_are_counted_each(refused, tmp_path):
    # One compressed block, many entries of the directory that point to it: what is unpacked counts, not what is packed.
    path = make_zip(tmp_path / "x", [("a", bytes(2**18))])
    raw = path.read_bytes()
    start = raw.index(b"PK\1\2")
    entry = raw[start : raw.index(b"PK\5\6")]
    directory = b"".join(entry[:-1] + bytes([letter]) for letter in b"abcdefgh")
    local = raw[:start]
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 8, 8, len(directory), len(local), 0)
    path.write_bytes(local + directory + end)
    refused(path, limit=2**20)


def test_a_tar_that_lies_about_a_size_is_refused(refused, tmp_path):
    for claimed in ("77777777777", "00000010000"):
        info, content = member("lie", b"x")
        header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
        header[124:136] = claimed.encode() + b"\0"
        path = tmp_path / f"x{claimed}"
        path.write_bytes(resummed(header) + content.ljust(512, b"\0") + bytes(1024))
        refused(path, "'lie'")


@pytest.mark.parametrize("name", ["lie", "._left_out"])
@pytest.mark.parametrize("size", [-512, -1024, -(2**30)])
def test_a_tar_with_a_negative_size_is_refused(refused, tmp_path, name, size):
    # `tarfile` goes back by it, and may go round in circles.
    header = bytearray(member(name)[0].tobuf(tarfile.USTAR_FORMAT))
    header[124:136] = b"\xff" + size.to_bytes(11, "big", signed=True)
    first, content = member("first", b"1")
    path = tmp_path / "x"
    path.write_bytes(first.tobuf() + content.ljust(512, b"\0") + resummed(header) + bytes(1024))
    refused(path, "header")


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
@pytest.mark.parametrize("size", [b"00070000000\0", b"\xff" + (-(2**30)).to_bytes(11, "big", signed=True)])
def test_a_header_of_absurd_length_is_refused_unread(refused, tmp_path, kind, size):
    header = bytearray(member("header")[0].tobuf(tarfile.USTAR_FORMAT))
    header[156:157], header[124:136] = kind, size
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(resummed(header) + bytes(15 * 2**20), 1))
    refused(path, "a header claims")


def resummed(header):
    """Give a tar header the checksum of what it now says."""
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header)


# Damage.


def chain_headers(kind, count, content):
    """A tar of headers that each speak of the next one, and at last of a file."""
    head = member("x", content, kind)[0].tobuf(tarfile.USTAR_FORMAT)
    return (head + content + bytes(-len(content) % 512)) * count + tarfile.TarInfo("f").tobuf() + bytes(1024)


PAX = b"1000000 comment=".ljust(999_999, b"a") + b"\n"


def holes(blocks):
    """A tar of a file whose list of holes goes on in further blocks."""
    info = tarfile.TarInfo("f")
    info.type = tarfile.GNUTYPE_SPARSE
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    head[386:410], head[482], head[148:156] = (b"%011o\0" % 1) * 2, 1, b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + ((b"%011o\0" % 1) * 42 + b"\1" + bytes(7)) * blocks + bytes(1024)


@pytest.mark.parametrize(
    "content",
    [
        *(chain_headers(b"x", count, PAX) for count in (2, 30)),
        *(chain_headers(b"g", count, PAX) for count in (2, 30)),
        *(chain_headers(kind, 30, b"n" * 100_000) for kind in (b"L", b"K")),
        chain_headers(b"x", 3000, b"11 a=bcdef\n"),
        *(holes(blocks) for blocks in (2_100, 4_000)),
    ],
    ids=lambda content: f"{len(content)}",
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_headers_without_end_are_refused_before_they_fill_the_memory(refused, tmp_path, content, pack):
    (tmp_path / "x").write_bytes(pack(content))
    tracemalloc.start()
    try:
        refused(tmp_path / "x", limit=2**30)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_a_zip_with_a_huge_directory_is_refused_unread(refused, tmp_path):
    entry = b"PK\1\2" + bytes(24) + b"\1\0" + bytes(16) + b"a"
    assert len(entry) == 47
    count = 2**26 // len(entry) + 1
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, count * len(entry), 30, 0)
    (tmp_path / "x").write_bytes(b"PK\3\4" + bytes(26) + entry * count + end)
    refused(tmp_path / "x", f"its directory claims {count * len(entry)} bytes")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_python_unpacks_as_a_whole_are_refused(refused, tmp_path, method):
    with zipfile.ZipFile(tmp_path / "x", "w", method) as archive:
        archive.writestr("bomb", bytes(2**24))
    refused(tmp_path / "x", "'bomb'", "another method than deflate")


@WRITERS
def test_truncated_archives_are_refused(refused, tmp_path, write):
    raw = write(tmp_path / "x", {"a": zlib.compress(b"abc" * 500), "b": bytes(range(256)) * 20}).read_bytes()
    padding = len(raw) - len(raw.rstrip(b"\0")) if write is as_tar else 0
    for left in (1, 3, 20, 100, 512, 700, 1024, 1536, len(raw) - padding - 10, len(raw) - max(1, padding)):
        if left < len(raw):
            path = tmp_path / f"cut{left}"
            path.write_bytes(raw[:left])
            refused(path)


@WRITERS
def test_damaged_archives_are_refused(refused, tmp_path, place, write):
    archive = write(tmp_path / "x", {"first": b"1" * 600, "second": bytes(range(256)) * 8})
    raw = archive.read_bytes()
    path = tmp_path / "damaged"
    position = raw.index(b"second") if write is not as_tar_gz else len(raw) // 2
    path.write_bytes(raw[:position] + bytes([raw[position] ^ 0x5A]) + raw[position + 1 :])
    refused(path)


def test_a_member_of_a_zip_with_a_wrong_checksum_is_named(refused, tmp_path):
    with zipfile.ZipFile(tmp_path / "x", "w") as archive:
        archive.writestr("good", b"good")
        archive.writestr("bad", b"as it was")
    path = tmp_path / "x"
    path.write_bytes(path.read_bytes().replace(b"as it was", b"as it is."))
    refused(path, "'bad'", "CRC")


def test_a_gzip_with_a_wrong_checksum_is_refused(refused, tmp_path):
    path = as_tar_gz(tmp_path / "x", CONTENT)
    raw = bytearray(path.read_bytes())
    raw[-6] ^= 1
    path.write_bytes(bytes(raw))
    refused(path, "CRC", "fetch it again")


def test_an_encrypted_zip_is_refused(refused, tmp_path):
    path = make_zip(tmp_path / "x", [("secret", b"x" * 100)])
    raw = bytearray(path.read_bytes())
    raw[6] |= 1
    raw[raw.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(bytes(raw))
    refused(path, "'secret'", "encrypted")


def test_a_zip_of_an_unknown_method_is_refused(refused, tmp_path):
    path = make_zip(tmp_path / "x", [("odd", b"x" * 100)])
    raw = bytearray(path.read_bytes())
    start = raw.index(b"PK\1\2")
    raw[8:10] = raw[start + 10 : start + 12] = b"\x63\0"
    path.write_bytes(bytes(raw))
    refused(path, "'odd'", "another method than deflate")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"hello",
        b"PK\5\6" + bytes(18),
        b"<html>404</html>" * 99,
        bytes(1024),
        gzip.compress(b"an idx" * 99, mtime=0),
    ],
)
def test_what_is_no_archive_is_refused(refused, tmp_path, raw):
    path = tmp_path / "x.tar.gz"
    path.write_bytes(raw)
    refused(path, "neither zip nor tar")


def test_an_archive_that_is_missing_is_named(refused, tmp_path):
    refused(tmp_path / "nowhere.zip", "No such file")


def test_a_folder_that_cannot_be_made_is_named(place, tmp_path):
    archive = as_zip(tmp_path / "x", CONTENT)
    before = tree(place)
    with pytest.raises(DataError, match=r"x cannot be extracted into .*kept"):
        extract(archive, place / "data" / "kept" / "inside")
    assert tree(place) == before


def test_a_full_disk_leaves_nothing(place, tmp_path, monkeypatch):
    def full(member, file):
        file.write(b"some")
        raise OSError(28, "No space left on device")

    archive = as_zip(tmp_path / "x", CONTENT)
    before = tree(place)
    monkeypatch.setattr(module, "_copy_content", full)
    for folder in (place / "data", place / "new" / "deep"):
        with pytest.raises(DataError, match=r"No space left on device$"):
            extract(archive, folder)
        assert tree(place) == before


@pytest.mark.parametrize("after", [1, 2, 3])
def test_an_interrupted_extraction_leaves_nothing(place, tmp_path, after):
    def interrupt(done):
        if done == after:
            raise KeyboardInterrupt

    archive = as_tar_gz(tmp_path / "x", CONTENT)
    before = tree(place)
    for folder in (place / "data", place / "new" / "deep"):
        with pytest.raises(KeyboardInterrupt):
            extract(archive, folder, interrupt)
        assert tree(place) == before


# Archives inside archives, and what macOS adds.


def inner(write, tmp_path, content):
    return write(tmp_path / "inner", content).read_bytes()


@WRITERS
@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz", ".TGZ"])
def test_an_archive_inside_is_extracted_where_it_lies_in_its_place(place, tmp_path, write, ending):
    archive = as_zip(tmp_path / "x", {f"outer/in{ending}": inner(write, tmp_path, CONTENT), "outer/note": b"hello"})
    assert extract(archive, place / "data") == 4
    expected = {f"outer/{name}": content for name, content in CONTENT.items()}
    assert files(place / "data") == {"kept": b"mine", "outer/note": b"hello", **expected}


def test_archives_are_extracted_one_level_deep(place, tmp_path):
    innermost = inner(as_zip, tmp_path, {"f": b"1"})
    middle = inner(as_tar, tmp_path, {"innermost.zip": innermost})
    extract(as_zip(tmp_path / "x", {"middle.tar": middle}), place / "data")
    assert files(place / "data") == {"kept": b"mine", "innermost.zip": innermost}


def test_what_only_looks_like_an_archive_inside_stays_a_file(place, tmp_path):
    arrays = inner(as_zip, tmp_path, {"f": b"1"})
    content = {"arrays.npz": arrays, "labels.zip": b"no zip", "idx.tar.gz": gzip.compress(b"no tar")}
    extract(as_tar(tmp_path / "x", content), place / "data")
    assert files(place / "data") == {"kept": b"mine", **content}


@pytest.mark.parametrize(
    "content", [{"../../evil": b""}, {"C:abs": b""}, {"inner.tar": b"itself"}, {"note": b"other"}, {"NOTE": b"other"}]
)
def test_an_archive_inside_is_held_to_the_same_rules(refused, tmp_path, content):
    raw = inner(as_tar, tmp_path, content)
    refused(as_zip(tmp_path / "x", {"set/inner.tar": raw, "set/note": b"hello"}), "x/set/inner.tar", *content)


def test_a_damaged_archive_inside_is_named(refused, tmp_path):
    raw = inner(as_tar_gz, tmp_path, CONTENT)
    for left in (12, 30, len(raw) - 4):
        refused(as_zip(tmp_path / "x", {"set/inner.tgz": raw[:left]}), "x/set/inner.tgz")


def test_archives_inside_share_the_limits(refused, place, tmp_path):
    raw = inner(as_tar_gz, tmp_path, {"zeros": bytes(2**19)})
    archive = as_zip(tmp_path / "x", {f"{name}/inner.tgz": raw for name in "abc"})
    refused(archive, "c/inner.tgz", "more than 1590000 bytes", limit=1_590_000)
    refused(archive, "c/inner.tgz", "more than 5 members", members=5)
    assert extract(archive, place / "data", limit=1_800_000, members=6) == 3


def test_what_macos_adds_is_left_out(place, tmp_path):
    raw = inner(as_tar_gz, tmp_path, {"a/1.jpg": b"1", "a/._1.jpg": b"fork"})
    content = {"set/in.tar.gz": raw, "__MACOSX/set/._in.tar.gz": b"\0\5\x16\7fork", "__MACOSX/.DS_Store": b""}
    assert extract(as_zip(tmp_path / "x", content), place / "data") == 1
    assert files(place / "data") == {"kept": b"mine", "set/a/1.jpg": b"1"}


def test_what_macos_adds_is_no_way_out(refused, tmp_path):
    refused(as_zip(tmp_path / "x", {"__MACOSX/../../evil": b""}), "leads out")
    refused(make_tar(tmp_path / "y", [member("._x", kind=tarfile.SYMTYPE, linkname="/")]), "link")
