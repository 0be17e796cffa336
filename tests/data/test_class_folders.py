from pathlib import Path

import numpy as np
import pytest
from helpers.images import image_folder
from PIL import Image

from featbench.data.class_folders import ClassFolderDataset, find_class_folders
from featbench.data.image_files import ImageFiles
from featbench.errors import DataError


class Zoo(ClassFolderDataset):
    name = "zoo"

    def root(self, data_dir):
        return data_dir / "zoo"


class Tame(Zoo):
    name = "tame"
    without = ("bear",)


@pytest.fixture
def root(tmp_path):
    """Three classes: 2 ants, 3 bears and 1 cat."""
    for seed, (name, count) in enumerate((("bear", 3), ("ant", 2), ("cat", 1))):
        image_folder(tmp_path / "zoo" / name, count, (4 + seed, 5), seed)
    return tmp_path / "zoo"


def below(root, paths):
    return [path.relative_to(root).as_posix() for path in paths]


def test_classes_are_the_folders_in_alphabetical_order_and_files_are_sorted(root):
    found = find_class_folders(root)
    assert found.classes == ("ant", "bear", "cat")
    assert below(root, found.files) == ["ant/0.png", "ant/1.png", "bear/0.png", "bear/1.png", "bear/2.png", "cat/0.png"]
    assert found.labels == [0, 0, 1, 1, 1, 2]
    assert (found.ignored, found.nested) == ([], [])


def test_images_are_named_by_their_paths_below_the_folder(root, tmp_path):
    image_folder(root / "cat" / "wild", 1, (5, 5))
    images = Zoo().load(tmp_path)
    assert images.names == below(root, images.pixels.paths)
    assert images.names[-2:] == ["cat/0.png", "cat/wild/0.png"]


def test_order_is_that_of_the_names_and_not_of_the_folder(root, monkeypatch):
    expected = find_class_folders(root)
    iterdir = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: sorted(iterdir(path), reverse=True))
    assert find_class_folders(root) == expected


def test_images_deeper_in_a_class_belong_to_it(root):
    image_folder(root / "cat" / "wild" / "big", 2, (5, 5))
    found = find_class_folders(root)
    assert below(root, found.files)[-3:] == ["cat/0.png", "cat/wild/big/0.png", "cat/wild/big/1.png"]
    assert found.labels[-3:] == [2, 2, 2]
    assert below(root, found.nested) == ["cat/wild/big/0.png", "cat/wild/big/1.png"]


@pytest.mark.parametrize("name", [".git", "__MACOSX", ".cache"])
def test_hidden_folders_are_no_classes(root, name):
    image_folder(root / name, 2, (4, 4))
    assert find_class_folders(root).classes == ("ant", "bear", "cat")


def test_a_class_can_be_left_out(root):
    found = find_class_folders(root, without=("bear", "dog"))
    assert found.classes == ("ant", "cat")
    assert found.labels == [0, 0, 1]


def test_other_files_are_ignored_and_listed(root, tmp_path):
    (root / "readme.txt").write_text("x")
    (root / "ant" / "notes.md").write_text("x")
    (root / "ant" / ".hidden.png").write_bytes((root / "ant" / "0.png").read_bytes())
    (root / "cat" / "0.txt").write_bytes((root / "cat" / "0.png").read_bytes())
    found = find_class_folders(root)
    assert below(root, [one.path for one in found.ignored]) == ["ant/.hidden.png", "ant/notes.md", "readme.txt"]
    assert below(root, found.files)[-2:] == ["cat/0.png", "cat/0.txt"]
    (remark,) = Zoo().remarks(tmp_path)
    listed = (
        f"hidden: 1, {root}/ant/.hidden.png; no image: 1, {root}/ant/notes.md; beside the class folders: 1, {root}/"
    )
    assert remark == f"3 files ignored: {listed}readme.txt"


def test_there_is_nothing_to_remark_where_nothing_is_ignored(root, tmp_path):
    assert Zoo().remarks(tmp_path) == []


@pytest.mark.parametrize("kept", [[], ["notes.txt"], ["0.pdf"]])
def test_an_empty_class_is_named(root, kept):
    (root / "cat" / "0.png").unlink()
    for name in kept:
        (root / "cat" / name).write_text("x")
    with pytest.raises(DataError, match=r"class 'cat' is empty: .*zoo/cat holds no images \(JPEG, PNG, "):
        find_class_folders(root)
    assert find_class_folders(root, without=("cat",)).classes == ("ant", "bear")


def test_files_that_differ_in_case_alone_are_refused_with_both_names(root):
    Image.new("L", (4, 4)).save(root / "bear" / "one.PNG")
    Image.new("L", (4, 4)).save(root / "bear" / "One.png")
    with pytest.raises(DataError, match="have one name but for the case: rename one of them") as caught:
        find_class_folders(root)
    assert str(root / "bear/one.PNG") in str(caught.value)
    assert str(root / "bear/One.png") in str(caught.value)


def test_classes_that_differ_in_case_alone_are_refused_with_both_names(root):
    image_folder(root / "Cat", 1, (4, 4))
    with pytest.raises(DataError, match=r"zoo/Cat and .*zoo/cat have one name but for the case"):
        find_class_folders(root)


def test_one_name_in_two_classes_is_allowed(root):
    assert (root / "ant/0.png").exists()
    assert (root / "bear/0.png").exists()
    assert len(find_class_folders(root).files) == 6


def test_a_folder_that_is_not_there_or_has_no_classes_is_named(tmp_path):
    with pytest.raises(DataError, match=r"there is no folder .*nowhere"):
        find_class_folders(tmp_path / "nowhere")
    image_folder(tmp_path / "flat", 3, (4, 4))
    with pytest.raises(DataError, match="flat holds no folders: a data set of images has one folder a class"):
        find_class_folders(tmp_path / "flat")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"there is no folder .*file"):
        find_class_folders(tmp_path / "file")


def test_images_are_read_when_they_are_asked_for(root, tmp_path):
    images = Zoo().load(tmp_path)
    assert isinstance(images.pixels, ImageFiles)
    assert images.classes == ("ant", "bear", "cat")
    assert images.labels.tolist() == [0, 0, 1, 1, 1, 2]
    assert images.labels.dtype == np.int64
    assert images.test is None
    for pixels, path in zip(images.pixels, find_class_folders(root).files, strict=True):
        assert np.array_equal(pixels, np.asarray(Image.open(path)))
    (root / "bear" / "2.png").write_bytes(b"damaged")
    assert len(Zoo().load(tmp_path).pixels) == 6


def test_a_class_that_is_left_out_is_neither_loaded_nor_part_of_the_fingerprint(root, tmp_path):
    images = Tame().load(tmp_path)
    assert (images.classes, images.labels.tolist()) == (("ant", "cat"), [0, 0, 1])
    before = Tame().fingerprint(tmp_path)
    assert before != Zoo().fingerprint(tmp_path)
    (root / "bear" / "0.png").unlink()
    assert Tame().fingerprint(tmp_path) == before


def test_fingerprint_is_that_of_paths_below_the_folder_and_of_contents(root, tmp_path):
    fingerprints = [Zoo().fingerprint(tmp_path)]
    (tmp_path / "moved").mkdir()
    root.rename(tmp_path / "moved" / "zoo")
    assert Zoo().fingerprint(tmp_path / "moved") == fingerprints[0]
    root = tmp_path / "moved" / "zoo"
    (root / "readme.txt").write_text("ignored")
    assert Zoo().fingerprint(tmp_path / "moved") == fingerprints[0]

    (root / "cat" / "0.png").rename(root / "cat" / "1.png")
    fingerprints.append(Zoo().fingerprint(tmp_path / "moved"))
    (root / "bear" / "2.png").rename(root / "cat" / "0.png")
    fingerprints.append(Zoo().fingerprint(tmp_path / "moved"))
    (root / "cat").rename(root / "dog")
    fingerprints.append(Zoo().fingerprint(tmp_path / "moved"))
    (root / "dog" / "0.png").write_bytes((root / "dog" / "1.png").read_bytes())
    fingerprints.append(Zoo().fingerprint(tmp_path / "moved"))
    assert len(set(fingerprints)) == len(fingerprints)
