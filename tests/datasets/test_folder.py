from pathlib import Path

import numpy as np
import pytest
from helpers.images import image_folder
from PIL import Image

from featbench.datasets.folder import Folder
from featbench.errors import DataError, UsageError
from featbench.registry import Registry


@pytest.fixture
def photographs(tmp_path):
    for seed, (name, count) in enumerate((("ant", 2), ("bee", 3))):
        image_folder(tmp_path / "photographs" / name, count, (6, 5), seed)
    return tmp_path / "photographs"


def test_a_folder_is_a_data_set_by_its_path(photographs, tmp_path):
    dataset = Registry().dataset(f"folder:{photographs}")
    assert isinstance(dataset, Folder)
    assert dataset.path == photographs
    for data_dir in (None, tmp_path / "elsewhere"):
        images = dataset.load(data_dir)
        assert (images.classes, images.labels.tolist()) == (("ant", "bee"), [0, 0, 1, 1, 1])
        assert np.array_equal(images.pixels[2], np.asarray(Image.open(photographs / "bee/0.png")))


def test_the_registered_data_set_itself_stays_without_a_path(photographs):
    registry = Registry()
    registry.dataset(f"folder:{photographs}")
    assert registry.dataset("folder").path is None


def test_a_path_may_hold_colons_and_start_at_home(photographs, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Registry().dataset("folder:~/photographs").load(None).classes == ("ant", "bee")
    photographs.rename(tmp_path / "a:b")
    assert Registry().dataset(f"folder:{tmp_path / 'a:b'}").load(None).classes == ("ant", "bee")


def test_a_relative_path_is_one_below_the_working_folder(photographs, monkeypatch):
    monkeypatch.chdir(photographs.parent)
    assert Registry().dataset("folder:photographs").fingerprint(None) == Folder(photographs).fingerprint(None)


def test_fingerprint_goes_with_the_images_and_not_with_the_path(photographs, tmp_path):
    before = Folder(photographs).fingerprint(None)
    moved = photographs.rename(tmp_path / "moved")
    assert Folder(moved).fingerprint(None) == before
    (moved / "ant" / "0.png").write_bytes((moved / "ant" / "1.png").read_bytes())
    assert Folder(moved).fingerprint(None) != before


def test_a_path_that_is_missing_is_asked_for():
    with pytest.raises(UsageError, match=r"folder: needs a path, as in folder:photographs"):
        Registry().dataset("folder:")
    for method in (Folder().load, Folder().fingerprint, Folder().remarks):
        with pytest.raises(DataError, match="needs a path: write folder:PATH, a folder with one folder a class"):
            method(None)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"there is no folder .*nowhere"):
        Folder(Path(tmp_path / "nowhere")).load(None)


def test_other_data_sets_take_no_argument(photographs):
    with pytest.raises(UsageError, match="data set digits takes no argument: write digits, not digits:"):
        Registry().dataset(f"digits:{photographs}")
