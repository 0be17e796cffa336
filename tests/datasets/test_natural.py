import os
from pathlib import Path

import numpy as np
import pytest
from helpers.images import image_folder
from PIL import Image

from featbench.data.maps import Preprocessing
from featbench.data.verification import verify
from featbench.datasets.natural import CANDIDATES, Berkeley
from featbench.errors import DataError
from featbench.experiment.steps import Steps
from featbench.experiment.unlabelled import find_unlabelled_images
from featbench.registry import Registry

REAL = Path(os.environ.get("FEATBENCH_DATA") or "nowhere")

with_data = pytest.mark.skipif(
    not any((REAL / folder).is_dir() for folder in CANDIDATES), reason="FEATBENCH_DATA has no photographs of BSDS500"
)


@pytest.mark.parametrize("candidate", CANDIDATES)
def test_photographs_are_found_wherever_they_are_unpacked(tmp_path, candidate):
    folder = image_folder(tmp_path / candidate, 3, (6, 5))
    pool = Berkeley().pool(tmp_path)
    assert len(pool) == 3
    for number, pixels in enumerate(pool):
        assert np.array_equal(pixels, np.asarray(Image.open(folder / f"{number}.png")))


def test_the_training_images_alone_are_taken_where_they_lie_apart(tmp_path):
    image_folder(tmp_path / "bsds500/train", 3, (6, 5))
    image_folder(tmp_path / "bsds500/test", 4, (6, 5))
    assert len(Berkeley().pool(tmp_path)) == 3


def test_fingerprint_is_that_of_the_photographs(tmp_path):
    image_folder(tmp_path / "one/bsds500/train", 3, (6, 5))
    image_folder(tmp_path / "two/bsds500", 3, (6, 5))
    before = Berkeley().fingerprint(tmp_path / "one")
    assert Berkeley().fingerprint(tmp_path / "two") == before
    (tmp_path / "one/bsds500/train/0.png").write_bytes((tmp_path / "one/bsds500/train/1.png").read_bytes())
    assert Berkeley().fingerprint(tmp_path / "one") != before


def test_there_is_nothing_to_classify(tmp_path):
    image_folder(tmp_path / "bsds500", 3, (6, 5))
    with pytest.raises(DataError, match="berkeley has no labels: learn filters from it, with --unlabelled berkeley"):
        Berkeley().load(tmp_path)


def test_verification_reads_every_photograph_and_asks_for_no_labels(tmp_path):
    folder = image_folder(tmp_path / "bsds500/train", 3, (6, 5))
    assert verify("berkeley", Berkeley(), tmp_path, lambda *_: None).problems == []
    (folder / "1.png").write_bytes(b"cut off")
    (problem,) = verify("berkeley", Berkeley(), tmp_path, lambda *_: None).problems
    assert "1.png cannot be read as an image" in problem


def test_photographs_that_are_missing_are_said_with_the_places(tmp_path):
    with pytest.raises(DataError, match="data set berkeley: set FEATBENCH_DATA or --data-dir"):
        Berkeley().pool(None)
    with pytest.raises(DataError) as caught:
        Berkeley().pool(tmp_path)
    for folder in CANDIDATES:
        assert folder in str(caught.value)
    image_folder(tmp_path / CANDIDATES[0], 0, (6, 5))
    with pytest.raises(DataError, match=r"bsds500/train holds no images"):
        Berkeley().pool(tmp_path)


def test_unlabelled_images_are_a_data_sets_or_those_of_a_folder(tmp_path, monkeypatch):
    image_folder(tmp_path / "bsds500", 3, (6, 5))
    folder = image_folder(tmp_path / "mine", 2, (6, 5))
    assert len(find_unlabelled_images("berkeley", Registry(), tmp_path)) == 3
    assert len(find_unlabelled_images(str(folder), Registry(), tmp_path)) == 2
    # A data set's name goes before a folder of that name.
    monkeypatch.chdir(image_folder(tmp_path / "work" / "berkeley", 1, (6, 5)).parent)
    assert len(find_unlabelled_images("berkeley", Registry(), tmp_path)) == 3
    assert len(find_unlabelled_images("./berkeley", Registry(), tmp_path)) == 1
    with pytest.raises(DataError, match="data set digits has no unlabelled images"):
        find_unlabelled_images("digits", Registry(), None)


def test_photographs_become_maps_of_their_own_size(tmp_path):
    image_folder(tmp_path / "bsds500/wide", 2, (20, 30))
    image_folder(tmp_path / "bsds500/high", 3, (30, 20))
    maps = Steps(Registry(), tmp_path).load_pool("berkeley", Preprocessing(size=9, lcn=1.0, pad=True))
    assert len(maps) == 5
    assert maps.sizes == {(12, 22), (22, 12)}


@with_data
def test_the_real_photographs_are_two_hundred_of_one_size_or_turned():
    pool = Berkeley().pool(REAL)
    assert len(pool) == 200
    assert {pool[index].shape for index in range(0, 200, 20)} <= {(321, 481, 3), (481, 321, 3)}
    if Berkeley.content:
        assert Berkeley().fingerprint(REAL) == Berkeley.content
