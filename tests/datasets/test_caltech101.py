import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers.images import image_folder
from PIL import Image

from featbench.datasets.caltech101 import FOLDER, PARENTS, Caltech101, Caltech101Objects
from featbench.errors import DataError
from featbench.registry import Registry

REAL = Path(os.environ.get("FEATBENCH_DATA") or "nowhere")

with_data = pytest.mark.skipif(
    not any((REAL / parent / FOLDER).is_dir() for parent in PARENTS), reason="FEATBENCH_DATA has no Caltech-101"
)


def tree(folder):
    """A small folder like Caltech-101's own: objects, faces, the background, and files that are no images."""
    root = folder / FOLDER
    for seed, (name, count) in enumerate((("BACKGROUND_Google", 4), ("Faces", 3), ("ant", 2))):
        image_folder(root / name, count, (6, 5 + seed), seed)
    (root / "BACKGROUND_Google" / "tmp").write_text("a list of web addresses")
    return root


@pytest.mark.parametrize("parent", PARENTS)
def test_the_folder_is_found_wherever_it_is_unpacked(tmp_path, parent):
    root = tree(tmp_path / parent)
    assert Caltech101().root(tmp_path) == root
    images = Caltech101().load(tmp_path)
    assert images.classes == ("BACKGROUND_Google", "Faces", "ant")
    assert images.labels.tolist() == [0] * 4 + [1] * 3 + [2] * 2
    assert images.test is None
    assert np.array_equal(images.pixels[4], np.asarray(Image.open(root / "Faces/0.png")))


def test_place_of_the_folder_is_no_part_of_the_fingerprint(tmp_path):
    for parent in PARENTS:
        tree(tmp_path / "copy" / parent)
    found = {Caltech101().fingerprint(tmp_path / "copy" / parent) for parent in PARENTS}
    assert len(found) == 1
    (tmp_path / "copy" / FOLDER / "ant" / "0.png").unlink()
    assert Caltech101().fingerprint(tmp_path / "copy") in found
    tree(tmp_path / "other")
    (tmp_path / "other" / FOLDER / "ant" / "0.png").unlink()
    assert Caltech101().fingerprint(tmp_path / "other") not in found


def test_objects_are_all_classes_but_the_background(tmp_path):
    tree(tmp_path)
    images = Caltech101Objects().load(tmp_path)
    assert images.classes == ("Faces", "ant")
    assert images.labels.tolist() == [0] * 3 + [1] * 2
    assert [path.parent.name for path in images.pixels.paths] == ["Faces"] * 3 + ["ant"] * 2
    assert Caltech101Objects().fingerprint(tmp_path) != Caltech101().fingerprint(tmp_path)


def test_ignored_files_are_said(tmp_path):
    root = tree(tmp_path)
    (root / "BACKGROUND_Google" / "tmp").write_bytes((root / "ant" / "0.png").read_bytes())
    assert Caltech101().remarks(tmp_path) == [f"1 file ignored: no image: 1, {root / 'BACKGROUND_Google/tmp'}"]


@pytest.mark.parametrize("dataset", [Caltech101(), Caltech101Objects()])
def test_a_folder_that_is_missing_is_named_with_what_to_do(dataset, tmp_path):
    with pytest.raises(DataError, match=f"data set {dataset.name} needs the folder {FOLDER}: set FEATBENCH_DATA or "):
        dataset.load(None)
    with pytest.raises(DataError) as caught:
        dataset.fingerprint(tmp_path)
    assert str(tmp_path / "caltech101" / FOLDER) in str(caught.value)
    assert f"featbench data fetch {dataset.name}" in str(caught.value)


def test_both_are_registered():
    assert isinstance(Registry().dataset("caltech101"), Caltech101)
    assert isinstance(Registry().dataset("caltech101-objects"), Caltech101Objects)


@with_data
def test_the_real_images_are_counted():
    images = Caltech101().load(REAL)
    assert len(images.pixels) == len(images.labels) == 9144
    assert len(images.classes) == 102
    counts = Counter(images.labels.tolist())
    assert (min(counts.values()), max(counts.values())) == (31, 800)
    assert images.classes[min(counts, key=counts.get)] == "inline_skate"
    objects = Caltech101Objects().load(REAL)
    assert (len(objects.pixels), len(objects.classes)) == (8677, 101)


@with_data
@pytest.mark.parametrize("dataset", [Caltech101(), Caltech101Objects()])
def test_the_real_images_have_the_known_fingerprint(dataset):
    assert dataset.fingerprint(REAL) == dataset.content


@with_data
def test_a_real_image_is_a_colour_photograph_of_about_300_pixels():
    image = Caltech101().load(REAL).pixels[1000]
    assert image.dtype == np.uint8
    assert image.shape[2] == 3
    assert 200 <= max(image.shape) <= 400
