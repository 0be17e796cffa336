import io
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from featbench.data.class_folders import find_class_folders
from featbench.data.folder_listing import Ignored, describe_ignored, list_folder
from featbench.data.image_files import ImageFiles, find_image_files, hash_image_files, hash_image_folder
from featbench.errors import DataError


def content(kind="PNG", seed=0, size=(9, 8)):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0.png").write_bytes(content())
    return tmp_path / "images"


@pytest.fixture
def socket_file(folder, monkeypatch):
    monkeypatch.chdir(folder)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s.jpg")
        yield folder / "s.jpg"


def what(folder):
    return {one.path.relative_to(folder).as_posix(): one.what for one in list_folder(folder)[1]}


def taken(folder):
    return [path.relative_to(folder).as_posix() for path in list_folder(folder)[0]]


@pytest.mark.parametrize("name", ["1.JPG", "1.jpeg", "1.jfif", "1.pgm", "1.PnM", "1.bmp", "1.webp", "1.TIF", "1.gif"])
def test_a_file_is_taken_by_its_name_whatever_it_holds(folder, name):
    (folder / name).write_text("no image")
    assert taken(folder) == ["0.png", name]
    with pytest.raises(DataError, match=name):
        ImageFiles(list_folder(folder)[0])[1]


@pytest.mark.parametrize("name", ["1", "1.dat", "1.jpg~", "1.png.bak", "1.txt", "photo.jpg_large", "1.heic"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM"])
def test_a_file_is_taken_by_its_content_whatever_its_name(folder, name, kind):
    (folder / name).write_bytes(content(kind))
    assert taken(folder) == ["0.png", name]
    assert ImageFiles(list_folder(folder)[0])[1].shape[:2] == (9, 8)
    assert list_folder(folder, by_name=True)[1] == [Ignored(folder / name, "no image")]


@pytest.mark.parametrize(
    ("name", "held", "is_called"),
    [
        ("a.txt", b"words", "no image"),
        ("a", b"", "no image"),
        ("Thumbs.db", b"\xd0\xcf\x11\xe0", "no image"),
        ("a.avif", b"\0\0\0\x1cftypavif" + bytes(40), "AVIF"),
        ("a.heic", b"\0\0\0\x18ftypheic" + bytes(40), "HEIC"),
        ("a.pdf", b"%PDF-1.7\n", "PDF"),
        ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
        ("a.svg", b"<svg/>", "SVG"),
        ("a.psd", b"8BPS\0\1", "Photoshop"),
        ("a.npy", b"\x93NUMPY\1\0", "an array of numpy"),
        ("a.zip", b"PK\3\4", "an archive"),
        ("a.mp4", b"\0\0\0\x18ftypisom", "a video"),
        ("a.NEF", content("TIFF"), "camera's raw file"),
        ("a.dng", content("TIFF"), "camera's raw file"),
        (".a.png", content(), "hidden"),
        ("._0.png", b"\0\5\x16\7", "hidden"),
    ],
)
def test_what_is_not_taken_is_called_what_it_is(folder, name, held, is_called):
    (folder / name).write_bytes(held)
    assert what(folder) == {name: is_called}
    assert taken(folder) == ["0.png"]


def test_links_pipes_sockets_and_devices_are_not_waited_for(folder, socket_file):
    os.mkfifo(folder / "pipe.png")
    os.mkfifo(folder / "pipe")
    (folder / "null.png").symlink_to("/dev/null")
    (folder / "zero").symlink_to("/dev/zero")
    (folder / "gone").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    (folder / "up").symlink_to("..")
    (folder / "linked.png").symlink_to("0.png")
    (folder / "linked").symlink_to("0.png")
    assert what(folder) == {
        "pipe.png": "FIFO",
        "pipe": "FIFO",
        "null.png": "device",
        "zero": "device",
        "s.jpg": "socket",
        "gone": "link that leads nowhere",
        "loop": "link that leads nowhere",
        "up": "link to a folder",
    }
    assert taken(folder) == ["0.png", "linked", "linked.png"]


def test_links_of_images_that_lead_nowhere_are_missed_images(folder):
    (folder / "1.png").symlink_to("nowhere.png")
    (folder / "2.png").symlink_to("2.png")
    assert taken(folder) == ["0.png", "1.png", "2.png"]
    assert what(folder) == {}


def test_subfolders_are_gone_through_but_for_hidden_ones(folder):
    for name in ("b/c/1.png", ".git/2.png", "a/3.png", "a/.b/4.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content())
    assert taken(folder) == ["0.png", "a/3.png", "b/c/1.png"]
    assert what(folder) == {".git": "hidden", "a/.b": "hidden"}


def test_a_line_counts_what_is_ignored_by_what_it_is(folder):
    assert describe_ignored(list_folder(folder)[1]) == []
    (folder / "notes.txt").write_text("x")
    assert describe_ignored(list_folder(folder)[1]) == [f"1 file ignored: no image: 1, {folder}/notes.txt"]
    (folder / "a.txt").write_text("x")
    os.mkfifo(folder / "pipe")
    (line,) = describe_ignored(list_folder(folder)[1])
    assert line == f"3 files ignored: no image: 2, as {folder}/a.txt; FIFO: 1, {folder}/pipe"


@pytest.mark.parametrize(
    "name", [b"M\xfcn.png", b"\xff", b"two\nlines.gif", b"\x1b[31m.jpg", "😀é.png".encode(), b" .bmp"]
)
def test_names_of_any_bytes_are_listed_hashed_and_read(folder, name):
    path = os.fsencode(folder) + b"/" + name
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(content(seed=1))
    found, ignored = list_folder(folder)
    assert sorted(os.fsencode(one) for one in found) == sorted([path, os.fsencode(folder / "0.png")])
    assert ignored == []
    assert len(hash_image_folder(folder)) == 64
    assert [image.shape for image in ImageFiles(found)] == [(9, 8)] * 2


def test_what_cannot_be_read_has_its_name_in_the_fingerprint(folder):
    hashes = [hash_image_folder(folder)]
    (folder / "1.png").symlink_to("later.txt")
    hashes.append(hash_image_folder(folder))
    (folder / "1.png").rename(folder / "2.png")
    hashes.append(hash_image_folder(folder))
    (folder / "later.txt").write_bytes(content(seed=3))
    hashes.append(hash_image_files([folder / "0.png", folder / "2.png"], folder))
    assert len(set(hashes)) == 4


def test_a_pipe_in_place_of_an_image_is_not_waited_for_by_the_fingerprint(folder):
    os.mkfifo(folder / "1.png")
    assert hash_image_files([folder / "0.png", folder / "1.png"], folder)


UNPRIVILEGED = """
import os
from pathlib import Path
from featbench.data.folder_listing import list_folder
from featbench.data.image_files import ImageFiles, hash_image_folder
if os.geteuid() == 0: os.setresuid(65534, 65534, 65534)
folder = Path("images")
found, ignored = list_folder(folder)
print([(one.path.name, one.what) for one in ignored], [path.name for path in found], len(hash_image_folder(folder)))
try: ImageFiles(found)[1]
except Exception as error: print(type(error).__name__, error)
"""
"""Run as somebody without rights: root may read everything."""


def test_what_may_not_be_read_is_named(folder):
    (folder / "1.png").write_bytes(content())
    (folder / "2.dat").write_bytes(content())
    (folder / "locked").mkdir()
    for name in ("1.png", "2.dat", "locked"):
        (folder / name).chmod(0)
    # The folders above need not be open: the program begins below them.
    folder.chmod(0o755)
    folder.parent.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", UNPRIVILEGED], capture_output=True, text=True, cwd=folder.parent)
    assert done.stdout.splitlines() == [
        "[('2.dat', 'file that cannot be read'), ('locked', 'folder that cannot be read')] ['0.png', '1.png'] 64",
        "DataError images/1.png cannot be read: Permission denied",
    ], done.stderr


# Folders of classes.


@pytest.fixture
def classes(folder):
    for name in ("ant", "bee"):
        (folder / name).mkdir()
        (folder / name / "0.png").write_bytes(content())
    return folder


def test_what_lies_beside_the_classes_is_ignored_and_named(classes):
    (classes / "notes.txt").write_text("x")
    (classes / "gone").symlink_to("nowhere")
    (classes / ".git").mkdir()
    (classes / "__MACOSX").mkdir()
    os.mkfifo(classes / "pipe")
    found = {one.path.name: one.what for one in find_class_folders(classes).ignored}
    beside = dict.fromkeys(("0.png", "gone", "notes.txt", "pipe"), "beside the class folders")
    assert found == {**beside, ".git": "hidden", "__MACOSX": "hidden"}


def test_links_to_folders_are_classes(classes):
    (classes / "cat").symlink_to(classes / "ant", target_is_directory=True)
    assert find_class_folders(classes).classes == ("ant", "bee", "cat")


def test_classes_have_names_that_can_be_printed(classes):
    os.rename(os.fsencode(classes / "ant"), os.fsencode(classes) + b"/p\xfc\n")  # noqa: PTH104
    found = find_class_folders(classes)
    assert found.classes == ("bee", r"p\xfc\n")
    assert found.labels == [0, 1]
    assert [image.shape for image in ImageFiles(found.files)] == [(9, 8)] * 2


def test_a_single_class_is_refused_by_name(classes):
    (classes / "bee" / "0.png").unlink()
    (classes / "bee").rmdir()
    with pytest.raises(DataError, match="images holds a single class, 'ant': there is nothing to tell apart"):
        find_class_folders(classes)
    assert len(find_image_files(classes)) == 2


def test_a_class_of_another_format_alone_says_so(classes):
    (classes / "bee" / "0.png").unlink()
    for number in range(3):
        (classes / "bee" / f"{number}.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    says = r"class 'bee' is empty: .*bee holds no images \(JPEG, .*\); 3 files ignored: HEIC: 3, as .*/0\.heic"
    with pytest.raises(DataError, match=says):
        find_class_folders(classes)
    with pytest.raises(DataError, match=r"the folder .*bee holds no images .*; 3 files ignored: HEIC"):
        find_image_files(classes / "bee")
