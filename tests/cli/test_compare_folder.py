"""`featbench compare --dataset folder:PATH`, from image files to the table."""

import io

import numpy as np
import pytest
from PIL import Image

PROTOCOL = """
import featbench

@featbench.hookimpl
def featbench_protocols():
    return [featbench.Protocol(
        name="small", summary="12 pixels at most", dataset="folder", architecture="4F3-Rabs-PA2/2",
        preprocessing=featbench.Preprocessing(size=12, pad=True), train_per_class=3, test="rest",
        features=("random",), regimes=("R",), classifiers=("nearest",), draws=2,
        metric="mean-per-class-accuracy", architectures={"wide": "6F3-Rabs-N3-PM2"},
    )]
"""

COUNTS = {"ant": 8, "bee": 10, "cat": 6}


@pytest.fixture
def photographs(tmp_path):
    """Three classes of stripes that are told apart by their direction, in several sizes, grey and in colour."""
    generator = np.random.default_rng(0)
    for label, (name, count) in enumerate(COUNTS.items()):
        folder = tmp_path / "photographs" / name
        folder.mkdir(parents=True)
        for number in range(count):
            y, x = np.mgrid[: 16 + number % 3, : 20 - number % 2]
            stripes = np.sin((x, y, x + y)[label] * 1.1 + generator.uniform(0, 6))
            grey = 127 + 80 * stripes + 15 * generator.standard_normal(stripes.shape)
            image = Image.fromarray(grey.clip(0, 255).astype(np.uint8))
            (image.convert("RGB") if number % 2 else image).save(folder / f"{number}.png")
    return tmp_path / "photographs"


@pytest.fixture
def compare_folder(run, tiny, write_plugin, photographs):
    """Call `featbench compare` on the photographs with these options; rows come as JSON."""
    protocol = write_plugin("small", PROTOCOL)
    named = ("--plugin", tiny, "--plugin", protocol, "--no-track", "--device", "cpu", "--format", "json")

    def compare_folder(*options, folder=photographs):
        return run("compare", "--protocol", "small", "--dataset", f"folder:{folder}", *named, *options)

    return compare_folder


def damage(photographs, *names):
    for name in names:
        path = photographs / name
        path.write_bytes(path.read_bytes()[:60])


def scores(ran):
    return {row["learner"]: row["scores"] for row in ran.rows}


def test_a_folder_is_compared_from_its_files_to_a_table(compare_folder, photographs):
    ran = compare_folder()
    assert ran.code == 0
    assert [row["status"] for row in ran.rows] == ["ok"] * 3
    row = ran.row("random")
    assert (row["dataset"], row["protocol"], row["n"]) == (f"folder:{photographs}", "small", 2)
    assert (row["train_per_class"], row["test_per_class"], row["images_left_out"]) == (3, "all", 0)
    # Better than one of three; the phases of the stripes, which raw pixels see, do not matter.
    assert row["mean"] > 60
    assert ran.row("chance")["mean"] < 60


def test_a_folder_that_was_moved_is_not_computed_again(compare_folder, photographs, tmp_path):
    first = compare_folder()
    moved = photographs.rename(tmp_path / "moved")
    second = compare_folder(folder=moved)
    assert "nothing to compute" in second.err
    assert scores(second) == scores(first)


def test_a_change_of_an_image_is_computed_again(compare_folder, photographs):
    compare_folder()
    Image.new("L", (20, 16)).save(photographs / "ant" / "0.png")
    assert "6 cells computed" in compare_folder().err


@pytest.mark.parametrize("count", [1, 2, 4])
def test_at_most_so_many_test_images_of_each_class_are_tested(compare_folder, store, count):
    ran = compare_folder("--test-per-class", count, "--draws", "1")
    assert ran.code == 0
    assert ran.row("random")["test_per_class"] == count
    sizes = {len(store.read_array("predictions", key)[0]) for key, _ in store.records("results")}
    assert sizes == {sum(min(count, images - 3) for images in COUNTS.values())}
    whole = compare_folder("--test-per-class", "all", "--draws", "1")
    assert whole.row("random")["test_per_class"] == "all"
    assert "3 cells computed" in whole.err


def test_an_architecture_is_asked_for_by_the_name_that_the_protocol_gives_it(compare_folder):
    by_name, by_text = (compare_folder("--stages", text, "--draws", "1") for text in ("wide", "6F3-Rabs-N3-PM2"))
    assert by_name.row("random")["architecture"] == "6F3-Rabs-N3-PM2"
    assert "nothing to compute" in by_text.err
    ran = compare_folder("--stages", "wid")
    assert ran.code == 2
    assert "small also knows by name: wide" in ran.err


def test_classifiers_with_parameters_have_rows_of_their_own(compare_folder):
    ran = compare_folder("--draws", "1", "--classifiers", "logistic,logistic(standardise=false,strength=0.01)")
    found = {row["classifier"]: row for row in ran.rows if row["learner"] == "random"}
    assert set(found) == {"logistic", "logistic(standardise=False,strength=0.01)"}
    assert {row["status"] for row in found.values()} == {"ok"}


# Images that cannot be used.


def test_a_bad_image_is_named_and_nothing_is_computed(compare_folder, photographs, home):
    damage(photographs, "bee/3.png")
    ran = compare_folder("--quiet")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"featbench: error: data set folder:{photographs}: ")
    assert f"{photographs / 'bee/3.png'} cannot be read as an image" in ran.err
    assert "Traceback" not in ran.err
    assert not (home / "results").exists()
    assert not (home / "artifacts").exists()


def test_all_bad_images_are_named_at_once(compare_folder, photographs):
    (photographs / "ant" / "a.jpg").write_text("not an image")
    (photographs / "ant" / "b.jpg").write_bytes(b"")
    damage(photographs, "bee/3.png", "cat/0.png")
    ran = compare_folder("--quiet")
    assert ran.code == 2
    assert "4 of 26 images cannot be used: mend or remove them, or leave them out with --skip-bad-images" in ran.err
    for name in ("ant/a.jpg", "ant/b.jpg", "bee/3.png", "cat/0.png"):
        assert str(photographs / name) in ran.err


def test_bad_images_are_left_out_where_that_is_asked_for_and_counted(compare_folder, photographs, store):
    (photographs / "ant" / "a.jpg").write_text("not an image")
    damage(photographs, "bee/3.png")
    ran = compare_folder("--skip-bad-images")
    assert ran.code == 0
    assert [row["images_left_out"] for row in ran.rows] == [2, 2, 2]
    assert [row["status"] for row in ran.rows] == ["ok"] * 3
    assert {document["report"]["images_left_out"] for _, document in store.records("results")} == {2}
    sizes = {len(store.read_array("predictions", key)[0]) for key, _ in store.records("results")}
    assert sizes == {sum(COUNTS.values()) - 1 - 9}
    for name in ("ant/a.jpg", "bee/3.png"):
        assert str(photographs / name) in ran.err


def test_what_was_left_out_once_is_not_left_out_again_unasked(compare_folder, photographs, home):
    damage(photographs, "bee/3.png")
    first = compare_folder("--skip-bad-images")
    results = sorted((home / "results").iterdir())
    for options in ((), ("--draws", "1"), ("--stages", "wide"), ("--classifiers", "logistic")):
        refused = compare_folder(*options, "--quiet")
        assert (refused.code, refused.out) == (2, "")
        assert str(photographs / "bee/3.png") in refused.err
        assert "--skip-bad-images" in refused.err
    assert sorted((home / "results").iterdir()) == results
    again = compare_folder("--skip-bad-images")
    assert "nothing to compute" in again.err
    assert again.out == first.out


def test_images_without_the_bad_ones_give_the_same_scores(compare_folder, photographs):
    damage(photographs, "bee/3.png", "cat/5.png")
    skipped = compare_folder("--skip-bad-images")
    (photographs / "bee/3.png").unlink()
    (photographs / "cat/5.png").unlink()
    removed = compare_folder()
    assert removed.code == 0
    assert "6 cells computed" in removed.err
    assert scores(removed) == scores(skipped)
    assert {row["images_left_out"] for row in removed.rows} == {0}


def test_a_class_that_loses_its_images_is_named(compare_folder, photographs):
    for path in (photographs / "cat").iterdir():
        damage(photographs, f"cat/{path.name}")
    ran = compare_folder("--skip-bad-images", "--quiet")
    assert ran.code == 2
    assert "class 'cat' has 0 images, but 3 are asked for training" in ran.err


def test_a_class_that_keeps_too_few_images_is_named(compare_folder, photographs):
    damage(photographs, "cat/0.png", "cat/1.png", "cat/2.png")
    ran = compare_folder("--skip-bad-images", "--quiet")
    assert ran.code == 2
    assert "class 'cat' has 3 images, but 3 are asked for training and at least 1 for testing" in ran.err


def test_an_image_too_small_for_the_protocol_is_bad_as_well(compare_folder, photographs, write_plugin):
    contrast = write_plugin("contrast", PROTOCOL.replace("pad=True", "pad=True, lcn=1.0").replace('"small"', '"lcn"'))
    Image.new("L", (60, 12)).save(photographs / "ant" / "thin.png")
    assert compare_folder().code == 0
    options = ("--protocol", "lcn", "--plugin", contrast, "--draws", "1", "--quiet")
    ran = compare_folder(*options)
    assert ran.code == 2
    assert f"{photographs / 'ant/thin.png'} comes to 2×12 pixels, but 9×9 are needed at least" in ran.err
    ran = compare_folder(*options, "--skip-bad-images")
    assert ran.code == 0
    assert {row["images_left_out"] for row in ran.rows} == {1}


def test_a_folder_that_is_no_data_set_is_one_line(compare_folder, photographs, tmp_path):
    (photographs / "dog").mkdir()
    (tmp_path / "flat").mkdir()
    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, "png")
    (tmp_path / "flat" / "a.png").write_bytes(buffer.getvalue())
    for folder, message in (
        (photographs, "class 'dog' is empty"),
        (tmp_path / "nowhere", "there is no folder"),
        (tmp_path / "flat", "holds no folders: a data set of images has one folder a class"),
    ):
        ran = compare_folder("--quiet", folder=folder)
        assert ran.code == 2
        assert message in ran.err
        assert ran.err.count("\n") == 1
