import gzip
from pathlib import Path

import numpy as np
import pytest

from featbench.data.binary_files import check_counts, check_labels, map_records, read_bytes, read_names
from featbench.errors import DataError


def test_bytes_are_the_same_gunzipped_or_plain_whatever_the_name(tmp_path):
    (tmp_path / "plain.gz").write_bytes(b"as it is")
    (tmp_path / "packed").write_bytes(gzip.compress(b"as it is"))
    (tmp_path / "empty").write_bytes(b"")
    assert read_bytes(tmp_path / "plain.gz") == b"as it is"
    assert read_bytes(tmp_path / "packed") == b"as it is"
    assert read_bytes(tmp_path / "empty") == b""


def test_compressed_file_cut_off_anywhere_is_refused(tmp_path):
    whole = gzip.compress(bytes(range(256)))
    for length in [*range(2, len(whole) - 12, 7), *range(len(whole) - 12, len(whole))]:
        (tmp_path / "cut.gz").write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"cut\.gz cannot be read .* truncated; fetch it again"):
            read_bytes(tmp_path / "cut.gz")


def test_compressed_file_with_a_flipped_byte_or_a_rest_is_refused(tmp_path):
    whole = gzip.compress(bytes(range(256)), mtime=0)
    changed = [whole[:k] + bytes([whole[k] ^ 0xFF]) + whole[k + 1 :] for k in range(10, len(whole), 3)]
    for content in (*changed, whole + b"rest"):
        (tmp_path / "bad.gz").write_bytes(content)
        with pytest.raises(DataError, match=r"bad\.gz cannot be read"):
            read_bytes(tmp_path / "bad.gz")


@pytest.mark.parametrize("read", [read_bytes, lambda path: map_records(path, 2), lambda path: read_names(path, 2)])
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
    assert map_records(tmp_path / "huge", 2**10)[-1, -1] == 7


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
