"""Runs the code blocks of README.md and docs/: Python blocks, and the `featbench` lines of shell blocks."""

import re
import shlex
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featbench.cli.main import main

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="session")
def store_of_reader(tmp_path_factory):
    """The store of one reader, who goes from page to page."""
    return tmp_path_factory.mktemp("reader") / "store"


@pytest.fixture
def reader(tmp_path, monkeypatch, store_of_reader):
    """A reader's folder: a photograph, three classes of them, MNIST with a tenth of its images, a tiny Caltech."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEATBENCH_HOME", str(store_of_reader))
    monkeypatch.setenv("FEATBENCH_DATA", str(tmp_path / "data"))
    generator = np.random.default_rng(0)
    (tmp_path / "bsds500").mkdir()
    Image.fromarray(generator.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(tmp_path / "bsds500" / "one.jpg")
    for kind, colour in (("beach", (250, 220, 120)), ("forest", (20, 120, 30)), ("sea", (30, 80, 200))):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for index in range(9):
            pixels = generator.integers(0, 256, (60, 80, 3)) // 2 + np.array(colour) // 2
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "photos" / kind / f"{index}.jpg")
    for kind in ("ant", "beaver"):
        folder = tmp_path / "data" / "caltech101" / "101_ObjectCategories" / kind
        folder.mkdir(parents=True)
        for index in range(31):
            Image.fromarray(generator.integers(0, 256, (12, 16), dtype=np.uint8)).save(folder / f"{index}.jpg")
    (tmp_path / "data" / "mnist").mkdir()
    for part, count in (("train", 6000), ("t10k", 1000)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        pixels = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        images_file = tmp_path / "data" / "mnist" / f"{part}-images-idx3-ubyte"
        images_file.write_bytes(struct.pack(">4I", 0x803, count, 28, 28) + pixels.tobytes())
        labels_file = tmp_path / "data" / "mnist" / f"{part}-labels-idx1-ubyte"
        labels_file.write_bytes(struct.pack(">2I", 0x801, count) + labels.tobytes())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_blocks_of_a_page_run(page, reader):
    for language, code in BLOCK.findall(page.read_text("utf-8")):
        name = re.match(r"# (\w+\.py)\n", code)
        if language == "sh":
            run_shell(code)
        elif name:
            Path(name.group(1)).write_text(code, "utf-8")
        else:
            exec(compile(code, str(page), "exec"), {"__name__": "__main__"})


def run_shell(code):
    """Run the featbench commands of a block; of those that take minutes, as much as takes seconds."""
    commands = [shlex.split(line, comments=True) for line in code.splitlines()]
    for program, *words in filter(None, commands):
        if program in ("make", "pip"):
            continue
        assert program == "featbench"
        little = [re.sub(r"(updates=\d+,)?patches=100000", "updates=2,patches=500", word) for word in words]
        assert main([*little, *(["--plan"] if "mnist" in words else [])]) == 0, words


def test_every_page_is_linked_from_the_readme():
    readme = PAGES[0].read_text("utf-8")
    for page in PAGES[1:]:
        assert f"docs/{page.name}" in readme


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
