"""Folders of images with one folder a class, comparisons on them, and a closer look at their rows."""

import numpy as np
import pytest
from PIL import Image

from featbench import compare, explain


@pytest.fixture
def photographs(tmp_path):
    """Write a folder with so many grey images of 8×8 in each of these classes; `files` name the first of them."""

    def write(classes=("ant", "bee", "cat"), count=9, files=(), noise=120):
        root, generator = tmp_path / "photographs", np.random.default_rng(0)
        patterns = generator.integers(0, 256, (len(classes), 8, 8))
        for pattern, folder in zip(patterns, classes, strict=True):
            (root / folder).mkdir(parents=True)
            for file in [*files, *(f"{number:02d}.png" for number in range(count))][:count]:
                pixels = np.clip(pattern + generator.normal(scale=noise, size=(8, 8)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / folder / file, format="png")
        return root

    return write


@pytest.fixture
def compare_row(tiny):
    """Compare one learner, random filters, under the tiny protocol on a folder or another data set; returns its row."""

    def run(dataset, protocol="tiny", plugins=(), **options):
        name = dataset if isinstance(dataset, str) else f"folder:{dataset}"
        asked = {"features": ["random"], "regimes": ["R"], "device": "cpu", "track": False, **options}
        rows = compare(protocol, dataset=name, plugins=[tiny, *plugins], **asked)
        return rows[rows["learner"] == asked["features"][0]].iloc[0]

    return run


@pytest.fixture
def explain_row(tiny, tmp_path):
    """Explain a row of the last comparison; returns the folder."""

    def run(row="random", plugins=(), **options):
        return explain(row, output=tmp_path / "details", plugins=[tiny, *plugins], **options).parent

    return run
