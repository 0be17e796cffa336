"""What cannot be looked at is said, and nothing is written."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from featbench import explain
from featbench.errors import DataError, FeatbenchError, StoreError, UsageError
from featbench.experiment.steps import Steps

FAILING = """
import featbench
from dataclasses import dataclass
from typing import ClassVar

@dataclass(frozen=True)
class Falling(featbench.FilterLearner):
    \"\"\"Fails.\"\"\"
    name: ClassVar[str] = "falling"
    family: ClassVar[str] = "random"
    def filters(self, bank, patches, seed):
        raise RuntimeError("it fell")

@featbench.hookimpl
def featbench_learners():
    return [Falling]
"""


def add_image(root):
    Image.new("L", (8, 8), 90).save(root / "ant" / "new.png")


def remove_image(root):
    (root / "bee" / "08.png").unlink()


def edit_image(root):
    Image.new("L", (8, 8), 90).save(root / "cat" / "00.png")


def rename_image(root):
    (root / "cat" / "00.png").rename(root / "cat" / "zero.png")


def rename_class(root):
    (root / "cat").rename(root / "dog")


def move_image(root):
    (root / "ant" / "00.png").rename(root / "bee" / "moved.png")


def swap_images(root):
    one, other = (root / "ant" / "00.png").read_bytes(), (root / "bee" / "00.png").read_bytes()
    (root / "ant" / "00.png").write_bytes(other)
    (root / "bee" / "00.png").write_bytes(one)


def damage_image(root):
    (root / "ant" / "05.png").write_bytes((root / "ant" / "05.png").read_bytes()[:40])


def add_class(root):
    (root / "zebra").mkdir()
    Image.new("L", (8, 8), 90).save(root / "zebra" / "0.png")


def resize_image(root):
    Image.new("L", (9, 9), 90).save(root / "ant" / "01.png")


CHANGES = [
    add_image, remove_image, edit_image, rename_image, rename_class, move_image, swap_images, damage_image, add_class,
    resize_image,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_data_set_that_has_changed(photographs, compare_row, explain_row, tmp_path, change):
    root = photographs()
    compare_row(root)
    change(root)
    with pytest.raises(DataError, match=f"data set folder:{root} is no longer what random R nearest was tested on"):
        explain_row()
    assert not (tmp_path / "details").exists()


def test_a_data_set_that_is_gone(photographs, compare_row, explain_row):
    root = photographs()
    compare_row(root)
    root.rename(root.with_name("elsewhere"))
    with pytest.raises(DataError, match="there is no folder"):
        explain_row()


def test_files_that_are_no_images_change_nothing(photographs, compare_row, explain_row):
    root = photographs()
    compare_row(root)
    (root / "ant" / "notes.txt").write_text("not an image")
    assert (explain_row() / "index.html").is_file()


def test_a_row_that_failed(photographs, compare_row, explain_row, write_plugin):
    plugin = write_plugin("falling", FAILING)
    compare_row(photographs(), plugins=[plugin], features=["random", "falling"])
    with pytest.raises(UsageError, match=r"falling R nearest is failed, .*it fell"):
        explain_row("falling", plugins=[plugin])
    assert (explain_row(plugins=[plugin]) / "index.html").is_file()


def test_a_row_that_was_skipped(photographs, compare_row, explain_row):
    compare_row(photographs(), features=["random", "gabor"], regimes=["R"])
    with pytest.raises(UsageError, match="gabor R nearest is skipped"):
        explain_row("gabor")


def find_results(home, learner="random"):
    documents = {path: json.loads(path.read_text()) for path in (home / "results").glob("*.json")}
    return sorted(path for path, document in documents.items() if document["cell"]["learner"] == learner)


def test_a_row_that_is_not_complete(photographs, compare_row, explain_row, home):
    compare_row(photographs())
    find_results(home)[0].unlink()
    with pytest.raises(UsageError, match="random R nearest is not run"):
        explain_row()


def remove_predictions(path):
    path.unlink()


def cut_predictions(path):
    path.write_bytes(path.read_bytes()[:-3])


def change_predictions(path):
    values = np.load(path)
    np.save(path, (values + 1) % 3)


def empty_predictions(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [remove_predictions, cut_predictions, change_predictions, empty_predictions])
def test_predictions_that_are_damaged(photographs, compare_row, explain_row, home, damage):
    compare_row(photographs())
    damage(home / "artifacts" / "predictions" / f"{find_results(home)[0].stem}.npy")
    with pytest.raises(FeatbenchError, match=r"random R nearest.*run the comparison again"):
        explain_row()


@pytest.mark.parametrize("change", [lambda test: test[:-1], lambda test: test[:0], lambda test: (test + 8) % 27])
def test_a_split_that_is_drawn_otherwise_than_it_was(photographs, compare_row, explain_row, monkeypatch, change):
    compare_row(photographs(), draws=5)
    split = Steps.split
    monkeypatch.setattr(
        Steps, "split", lambda *given: (drawn := split(*given)) and replace(drawn, test=change(drawn.test))
    )
    with pytest.raises(StoreError, match="which images random R nearest was tested on in draw 0 is no longer known"):
        explain_row()


@pytest.mark.parametrize(
    "old, new", [("distances.argmin", "(distances + 0).argmin"), ('name = "nearest"', 'name = "nearest"\n    more = 1')]
)
def test_a_plugin_that_has_changed(photographs, compare_row, explain_row, tiny, old, new):
    compare_row(photographs())
    tiny.write_text(tiny.read_text().replace(old, new))
    with pytest.raises(StoreError, match="featbench or a plugin has changed since; run the comparison again"):
        explain_row()


@pytest.mark.parametrize("row", ["psd", "random U", "0", "9", "", "random R knn", "best "])
def test_a_row_that_is_not_there(photographs, compare_row, explain_row, row):
    compare_row(photographs())
    if row.strip() == "best":
        assert explain_row(row)
        return
    with pytest.raises(UsageError, match="has no row"):
        explain_row(row)


def test_an_empty_store(explain_row):
    with pytest.raises(UsageError, match="holds no comparison"):
        explain_row()


def test_a_comparison_that_is_not_there(photographs, compare_row, explain_row):
    compare_row(photographs())
    with pytest.raises(UsageError, match="unknown comparison 'beef'"):
        explain_row(comparison="beef")


def test_bad_images_that_the_comparison_left_out_must_be_left_out_again(photographs, compare_row, explain_row):
    root = photographs()
    (root / "ant" / "03.png").write_bytes(b"damaged")
    compare_row(root, skip_bad_images=True)
    with pytest.raises(DataError, match=r"1 images cannot be used, the first: .*skip_bad_images"):
        explain_row()


@pytest.mark.parametrize("place", ["", "file", "file/below", "dangling", "dangling/below"])
def test_an_output_that_is_no_folder(tmp_path, place):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"cannot be written|takes a path"):
        explain(output=tmp_path / place if place else "")
    assert (tmp_path / "file").read_text() == "kept"
