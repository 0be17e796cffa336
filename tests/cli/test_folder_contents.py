"""What a folder holds besides sound images: said by every command that uses the folder, or left out where asked for."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

OPTIONS = ("--features", "random", "--regimes", "R", "--draws", "1", "--train-per-class", "3", "--no-track", "--quiet")

STAGES = ("--stages", "2F3-PA2/2", "--classifiers", "nearest")


@pytest.fixture
def folder(tmp_path):
    """Two classes of six images each, of noise about another mean."""
    generator = np.random.default_rng(0)
    for label, name in enumerate(("ant", "bee")):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(6):
            values = generator.integers(60 * label, 60 * label + 190, (12, 12), dtype=np.uint8)
            Image.fromarray(values).save(tmp_path / "set" / name / f"{number}.png")
    return tmp_path / "set"


@pytest.fixture
def compare(run, tiny, folder):
    def compare(*options, dataset=None):
        named = ("--dataset", f"folder:{dataset or folder}", "--protocol", "digits", "--plugin", tiny)
        return run("compare", *named, *OPTIONS, *STAGES, *options)

    return compare


def add(folder, name, what):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    if what == "pipe":
        os.mkfifo(path)
    elif isinstance(what, bytes):
        path.write_bytes(what)
    else:
        path.symlink_to(what)


EXTRAS = {
    "ant/notes.txt": (b"words", "no image: 1, {}"),
    "ant/a.avif": (b"\0\0\0\x1cftypavif" + bytes(40), "AVIF: 1, {}"),
    "ant/a.pdf": (b"%PDF-1.4", "PDF: 1, {}"),
    "bee/a.eps": (b"%!PS-Adobe-3.0 EPSF-3.0", "PostScript: 1, {}"),
    "bee/.DS_Store": (b"\0\0\0\1Bud1", "hidden: 1, {}"),
    "bee/gone": ("nowhere", "link that leads nowhere: 1, {}"),
    "bee/loop": ("loop", "link that leads nowhere: 1, {}"),
    "bee/up": ("..", "link to a folder: 1, {}"),
    "bee/pipe.png": ("pipe", "FIFO: 1, {}"),
    "bee/null.jpg": ("/dev/null", "device: 1, {}"),
    "loose.png": (b"x", "beside the class folders: 1, {}"),
    "gone": ("nowhere", "beside the class folders: 1, {}"),
}


@pytest.mark.parametrize("name", EXTRAS)
def test_what_is_ignored_is_said_once_and_again_when_results_are_in_the_store(compare, run, folder, name):
    held, says = EXTRAS[name]
    add(folder, name, held)
    line = f"1 file ignored: {says.format(folder / name)}"
    ran = compare()
    assert ran.code == 0
    assert ran.err.splitlines() == [f"featbench: data set folder:{folder}: {line}"]
    assert compare("--plan").err.splitlines() == [f"featbench: data set folder:{folder}: {line}"]
    verified = run("data", "verify", f"folder:{folder}")
    assert verified.code == 0
    assert line in verified.out.splitlines()


def test_images_in_subfolders_are_taken_and_said(compare, folder):
    (folder / "ant" / "more").mkdir()
    shutil.move(folder / "ant/5.png", folder / "ant/more/5.png")
    first = folder / "ant/more/5.png"
    line = f"images in subfolders of classes, taken as images of the class: 1, as {first}"
    assert compare().err.splitlines() == [f"featbench: data set folder:{folder}: {line}"]


WARNINGS = {
    "blank": "images of one value all over, from which nothing can be learned: 1 (ant/x.png)",
    "within": "the same image several times in a class, so that it may train and test: 1 (ant/0.png = ant/x.png)",
    "across": "the same image in several classes, of which one at most is right: 1 (ant/x.png = bee/0.png)",
    "pages": "images with several frames or pages, of which the first is read: 1 (ant/x.png)",
    "bits": "images with 16 bits a pixel of which 12 are used, so that 4095 is white: 1 (ant/x.png)",
    "small": "images with a side of less than 8 pixels: 1 (ant/x.png)",
}


@pytest.mark.parametrize("kind", WARNINGS)
def test_what_is_strange_about_images_is_said_and_kept_in_the_store(compare, run, folder, kind):
    path, noise = folder / "ant/x.png", np.random.default_rng(1).integers(0, 256, (12, 12), dtype=np.uint8)
    if kind == "blank":
        Image.new("L", (12, 12), 90).save(path)
    elif kind in ("within", "across"):
        # In another format: copies are told by their pixels.
        Image.open(folder / ("ant" if kind == "within" else "bee") / "0.png").save(path, format="BMP")
    elif kind == "pages":
        Image.fromarray(noise).save(path, format="TIFF", save_all=True, append_images=[Image.fromarray(255 - noise)])
    elif kind == "bits":
        Image.fromarray(noise.astype(np.uint16) * 16).save(path)
    else:
        Image.fromarray(noise[:7]).save(path)
    line = WARNINGS[kind]
    for _ in range(2):
        # Images of several sizes suit no learner here, and warnings come before anything else.
        assert compare().err.splitlines()[0] == f"featbench: data set folder:{folder}: {line}"
    assert line in run("data", "verify", f"folder:{folder}").out.splitlines()


BAD = {
    "gone.png": ("nowhere.png", "cannot be read: No such file or directory"),
    "loop.png": ("loop.png", "cannot be read: Too many levels of symbolic links"),
    "avif.jpg": (b"\0\0\0\x1cftypavif" + bytes(40), "cannot be read as an image: it is AVIF, and not JPEG"),
    "eps.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0", "cannot be read as an image: it is PostScript"),
    "text.png": (b"words", "cannot be read as an image (no image that featbench reads)"),
    "empty.gif": (b"", "cannot be read as an image (an empty file)"),
    "huge.ppm": (b"P6 99999 99999 255\n", "cannot be read as an image: it has 99999×99999 pixels"),
    "cut.bmp": (b"BM" + bytes(12) + b"\x28\0\0\0" + bytes(9), "cannot be read as an image"),
    "cut.webp": (b"RIFF\x40\0\0\0WEBPVP8 " + bytes(9), "cannot be read as an image"),
    "M\udcfcn.png": (b"words", "cannot be read as an image"),
}


@pytest.mark.parametrize("name", BAD)
def test_images_that_cannot_be_read_are_named_or_left_out(compare, folder, name):
    held, says = BAD[name]
    plain = json.loads(compare("--format", "json").out)
    add(folder / "ant", name, held)
    shown = f"{folder}/ant/{name}".replace("\udcfc", "\\xfc")
    refused = compare()
    assert (refused.code, refused.out) == (2, "")
    assert f"{shown} {says}" in refused.err
    skipped = compare("--skip-bad-images", "--format", "json")
    assert skipped.code == 0
    assert f"left out: {shown} {says}" in skipped.err
    assert [row["scores"] for row in json.loads(skipped.out)] == [row["scores"] for row in plain]
    assert {row["images_left_out"] for row in json.loads(skipped.out)} == {1}


@pytest.mark.parametrize("form", ["table", "markdown", "csv", "json"])
def test_names_that_are_not_utf8_are_read_kept_and_printed(compare, run, folder, form, tmp_path):
    expected = [row["scores"] for row in json.loads(compare("--format", "json").out)]
    odd = tmp_path / os.fsdecode(b"p\xfc")
    folder.rename(odd)
    (odd / "ant").rename(odd / os.fsdecode(b"ant\xe9\n"))
    (odd / "bee" / "3.png").rename(odd / "bee" / os.fsdecode(b"M\xfc.png"))
    for _ in range(2):
        ran = compare("--format", form, dataset=odd)
        assert (ran.code, ran.err) == (0, "")
        ran.out.encode()
        if form == "json":
            # Another name may change the order of images, and so what is drawn, but none is missing.
            assert len(json.loads(ran.out)) == len(expected)
    verified = run("data", "verify", f"folder:{odd}")
    assert verified.code == 0
    assert "smallest" in verified.out
    (odd / "bee" / os.fsdecode(b"M\xfc.png")).write_bytes(b"x")
    refused = compare(dataset=odd)
    assert refused.code == 2
    assert r"p\xfc/bee/M\xfc.png cannot be read as an image" in refused.err


@pytest.mark.parametrize("command", ["compare", "verify"])
def test_one_class_alone_is_refused(compare, run, folder, command):
    shutil.rmtree(folder / "bee")
    ran = compare() if command == "compare" else run("data", "verify", f"folder:{folder}")
    assert ran.code == 2
    assert f"{folder} holds a single class, 'ant': there is nothing to tell apart" in ran.err


def test_unlabelled_folders_say_what_is_ignored_and_leave_bad_images_out(run, folder, tmp_path):
    pool = tmp_path / "pool"
    shutil.copytree(folder / "ant", pool)
    add(pool, "pipe.png", "pipe")
    add(pool, "notes.txt", b"words")
    options = ("--features", "pca", "--regimes", "U", "--draws", "1", "--train-per-class", "3", "--no-track", "--quiet")
    named = ("--dataset", f"folder:{folder}", "--protocol", "digits", "--unlabelled", str(pool), *options)
    stages = ("--stages", "2F3-PA2/2", "--classifiers", "logistic")
    line = f"2 files ignored: no image: 1, {pool}/notes.txt; FIFO: 1, {pool}/pipe.png"
    for _ in range(2):
        ran = run("compare", *named, *stages)
        assert ran.code == 0
        assert ran.err.splitlines() == [f"featbench: unlabelled images {pool}: {line}"]
    (pool / "gone.jpg").symlink_to("nowhere.jpg")
    failed = run("compare", *named, *stages)
    assert failed.code == 1
    assert f"{pool}/gone.jpg cannot be read: No such file" in failed.err
    ran = run("compare", *named, *stages, "--skip-bad-images", "--retry")
    assert ran.code == 0
    assert f"left out: {pool}/gone.jpg cannot be read" in ran.err


PUBLISHED = """
from pathlib import Path
import featbench
from featbench.data.class_folders import ClassFolderDataset

class Published(ClassFolderDataset):
    '''A set that others publish scores on.'''
    name = "published"
    content = "{content}"

    def root(self, data_dir):
        return Path("{folder}")

@featbench.hookimpl
def featbench_datasets():
    return [Published()]
"""


@pytest.mark.parametrize("content", ["0" * 64, ""])
def test_sets_with_a_published_content_are_not_commented_on(run, tiny, folder, write_plugin, content):
    Image.new("L", (12, 12), 90).save(folder / "ant/x.png")
    add(folder, "ant/notes.txt", b"words")
    plugin = write_plugin("published", PUBLISHED.format(content=content, folder=folder))
    named = ("--dataset", "published", "--protocol", "digits", "--plugin", tiny, "--plugin", plugin)
    ran = run("compare", *named, *OPTIONS, *STAGES)
    assert ran.code == 0
    assert len(ran.err.splitlines()) == (0 if content else 2)
