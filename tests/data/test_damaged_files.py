import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks/fuzz_readers.py"


@pytest.fixture(scope="module")
def counts(tmp_path_factory):
    """What comes of a few damaged files of every reader."""
    page = tmp_path_factory.mktemp("fuzz") / "page"
    options = ["--cases", "80", "--seed", "7", "--no-bombs", "--output", str(page)]
    done = subprocess.run([sys.executable, PROGRAM, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(page.with_suffix(".json").read_text("utf-8"))


def test_a_damaged_file_is_refused_or_read_for_what_it_holds(counts):
    assert counts["odd"] == []
    assert counts["cases"] >= 80
    assert min(counts["total"][outcome] for outcome in ("error", "same", "other")) > 3


def test_every_reader_is_among_them(counts):
    text = " ".join(counts["targets"])
    for reader in (
        "jpg",
        "png",
        "pgm",
        "ppm",
        "bmp",
        "webp",
        "tif",
        "gif",
        "MNIST",
        "NORB",
        "SVHN",
        "CIFAR",
        "STL",
        "zip",
        "tar",
    ):
        assert reader in text
