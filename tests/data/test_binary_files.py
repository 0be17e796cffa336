import gzip
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest

from featbench.data import binary_files
from featbench.data.binary_files import check_counts, check_labels, map_records, read_array, read_content, read_names
from featbench.errors import DataError


def packed(content):
    return gzip.compress(content, mtime=0)


def read_numbers(path):
    """Read a file whose first byte says how many bytes follow."""
    return read_array(path, 1, lambda header: ([header[0]], "u1")).tolist()


WHOLE = bytes([200]) + np.random.default_rng(0).integers(0, 256, 200, dtype=np.uint8).tobytes()


def test_content_is_the_same_compressed_or_plain_whatever_the_name(tmp_path):
    (tmp_path / "plain.gz").write_bytes(b"as it is")
    (tmp_path / "packed").write_bytes(packed(b"as it is"))
    (tmp_path / "members").write_bytes(packed(b"as ") + packed(b"") + packed(b"it is"))
    (tmp_path / "empty").write_bytes(b"")
    assert read_content(tmp_path / "plain.gz") == b"as it is"
    assert read_content(tmp_path / "packed") == b"as it is"
    assert read_content(tmp_path / "members") == b"as it is"
    assert read_content(tmp_path / "empty") == b""


def test_an_array_is_the_same_compressed_or_plain(tmp_path):
    for content in (WHOLE, packed(WHOLE), packed(WHOLE[:7]) + packed(WHOLE[7:])):
        (tmp_path / "a").write_bytes(content)
        assert read_numbers(tmp_path / "a") == list(WHOLE[1:])


@pytest.mark.parametrize("read", [read_content, read_numbers])
def test_compressed_file_cut_off_anywhere_is_refused(tmp_path, read):
    whole = packed(WHOLE)
    for length in [*range(2, len(whole) - 12, 7), *range(len(whole) - 12, len(whole))]:
        (tmp_path / "cut.gz").write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"cut\.gz cannot be read .* truncated; fetch it again"):
            read(tmp_path / "cut.gz")


@pytest.mark.parametrize("read", [read_content, read_numbers])
def test_compressed_file_with_a_flipped_byte_or_a_rest_is_refused(tmp_path, read):
    whole = packed(WHOLE)
    changed = [whole[:k] + bytes([whole[k] ^ 0xFF]) + whole[k + 1 :] for k in range(10, len(whole), 3)]
    for content in (*changed, whole + b"rest", whole + whole[:9]):
        (tmp_path / "bad.gz").write_bytes(content)
        with pytest.raises(DataError, match=r"bad\.gz (cannot be read|is truncated|is too long)"):
            read(tmp_path / "bad.gz")


@pytest.mark.parametrize("pack", [bytes, packed])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated: 0 bytes, its header alone has 1"),
        (WHOLE[:-1], r"truncated: 200 bytes, its header \[200\] asks for 201"),
        (WHOLE[:1], r"truncated: 1 bytes, its header \[200\] asks for 201"),
        (WHOLE + b"x", r"too long: its header \[200\] asks for 201 bytes, and more follow"),
        (WHOLE + WHOLE, "too long"),
    ],
)
def test_another_length_than_the_header_gives_is_refused(tmp_path, content, message, pack):
    (tmp_path / "array").write_bytes(pack(content))
    with pytest.raises(DataError, match=f"array is {message}"):
        read_numbers(tmp_path / "array")


def measure_peak(read):
    """Return how many bytes Python and numpy had allocated at most during a call that ends with a `DataError`."""
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as caught:
            read()
        return tracemalloc.get_traced_memory()[1], str(caught.value)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("sides", [(2**32 - 1,) * 3, (2**30 + 1,), (2**16, 2**15), (0xFFFFFFFF,), (2**40, 1, 1)])
@pytest.mark.parametrize("kind", ["u1", "<i4"])
@pytest.mark.parametrize("pack", [bytes, packed])
def test_a_header_that_announces_too_much_is_refused_before_memory_is_asked_for(tmp_path, sides, kind, pack):
    (tmp_path / "huge").write_bytes(pack(bytes(100)))
    peak, message = measure_peak(lambda: read_array(tmp_path / "huge", 16, lambda _: (sides, kind)))
    assert f"huge is damaged: its header {list(sides)} asks for" in message
    assert peak < 2**22


@pytest.mark.parametrize("announced", [1, 2**10, 2**20, 2**30])
def test_a_bomb_unpacks_to_what_its_header_announces_and_no_further(tmp_path, announced):
    bomb = zlib.compressobj(wbits=31)
    zeros = bytes(2**20)
    (tmp_path / "bomb").write_bytes(b"".join(bomb.compress(zeros) for _ in range(64)) + bomb.flush())
    peak, message = measure_peak(lambda: read_array(tmp_path / "bomb", 16, lambda _: ([announced], "u1")))
    assert "too long" in message or "truncated: 67108864 bytes" in message
    assert peak < min(announced, 2**26) * 1.3 + 2**23


def test_a_bomb_of_unknown_length_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(binary_files, "UNPACKED", 2**21)
    (tmp_path / "bomb").write_bytes(packed(bytes(2**26)))
    peak, message = measure_peak(lambda: read_content(tmp_path / "bomb"))
    assert message.endswith("bomb unpacks to more than 2097152 bytes: it is not what its name says; fetch it again")
    assert peak < 2**24


@pytest.mark.parametrize(
    "read", [read_content, read_numbers, lambda path: map_records(path, 2), lambda path: read_names(path, 2)]
)
def test_what_cannot_be_opened_is_a_data_error_with_its_path(tmp_path, read):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(DataError, match=f"^{path} "):
            read(path)


def test_records_are_rows(tmp_path):
    (tmp_path / "a").write_bytes(bytes([1, 2, 3, 250, 251, 252]))
    records = map_records(tmp_path / "a", 3)
    assert records.dtype == np.uint8
    assert records.tolist() == [[1, 2, 3], [250, 251, 252]]


def test_mapping_a_file_does_not_read_it(tmp_path):
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2**36)
        file.seek(-1, 2)
        file.write(b"\x07")
    assert map_records(tmp_path / "huge", 2**10, most=None)[-1, -1] == 7
    with pytest.raises(DataError, match=r"huge has 68719476736 bytes, and no more than 1073741824 are read"):
        map_records(tmp_path / "huge", 2**10)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (0, "is empty: it should hold records of 5 bytes"),
        (4, "has 4 bytes, which is not a multiple of 5"),
        (11, "has 11 bytes, which is not a multiple of 5"),
    ],
)
def test_file_that_is_no_whole_number_of_records_is_refused(tmp_path, size, message):
    (tmp_path / "records").write_bytes(bytes(size))
    with pytest.raises(DataError, match=f"records {message}"):
        map_records(tmp_path / "records", 5)


@pytest.mark.parametrize("text", ["cat\nlarge dog\n", "cat\r\nlarge dog\r\n\r\n", " cat \nlarge dog"])
def test_names_are_lines_less_the_blank_ones(tmp_path, text):
    (tmp_path / "names").write_bytes(text.encode())
    assert read_names(tmp_path / "names", 2) == ("cat", "large dog")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds 0 names, 0 of them different, where 2 classes"),
        (b"cat\n", "holds 1 names"),
        (b"cat\ndog\ncow\n", "holds 3 names"),
        (b"cat\ncat\n", "holds 2 names, 1 of them different"),
        (b"cat\ndog\ncat\n", "holds 3 names, 2 of them different"),
        (b"cat\n\xff\xfe\n", "cannot be read as a list of names"),
    ],
)
def test_names_that_are_not_one_a_class_are_refused(tmp_path, content, message):
    (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(DataError, match=rf"names\.txt {message}"):
        read_names(tmp_path / "names.txt", 2)


def test_labels_within_their_range_pass_and_others_are_named():
    labels = np.array([1, 3, 10], dtype=np.uint8)
    check_labels(Path("marks"), labels, 1, 10)
    with pytest.raises(DataError, match="marks holds the label 10; labels are 1 to 9"):
        check_labels(Path("marks"), labels, 1, 9)
    with pytest.raises(DataError, match="marks holds the label 1; labels are 2 to 10"):
        check_labels(Path("marks"), labels, 2, 10)
    with pytest.raises(DataError, match="the label -1;"):
        check_labels(Path("marks"), np.array([0, -1], dtype=np.int32), 0, 4)


def test_counts_that_differ_name_both_files():
    check_counts(Path("a"), [1, 2], Path("b"), [3, 4])
    with pytest.raises(DataError, match=r"^a holds 2 images, but b holds 1 poses"):
        check_counts(Path("a"), [1, 2], Path("b"), [3], "poses")


def test_what_is_wrong_with_records_is_said_once(tmp_path):
    path = tmp_path / "records"
    for content, reason in ((b"", "is empty"), (b"1234567", "has 7 bytes"), (b"1" * 20, "has 20 bytes")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"^{path} {reason}"):
            map_records(path, 5, 15)
    with pytest.raises(DataError, match=rf"^{path}x cannot be read \("):
        map_records(tmp_path / "recordsx", 5)
