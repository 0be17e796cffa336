import dataclasses
import shutil
from functools import cache
from pathlib import Path

import pytest
from helpers.images import image_folder

import featbench
from featbench.comparison import Workbench
from featbench.data.maps import Preprocessing
from featbench.evaluation.regimes import REGIMES
from featbench.experiment.cell import Cell
from featbench.experiment.request import Request
from featbench.experiment.variations import list_deciding_fields
from featbench.parameters import Choice
from featbench.refinement.settings import Refinement
from featbench.registry import Registry
from featbench.store.keys import CLASSIFYING, NUMERICAL, PACKAGE, PREPARING, Keys, compute_code_version, find_code_files
from featbench.system.hashing import code_hash, content_hash


@pytest.fixture
def learner_file(write_learner):
    return write_learner("counted")


@pytest.fixture
def cell(tiny, learner_file):
    """A cell of the learner `counted` under U."""
    bench = Workbench(plugins=[tiny, learner_file])
    plan = bench.plan(Request("tiny", features=["counted"], regimes=["U"], device="cpu"))
    return next(cell for cell in plan if cell.learner.name == "counted")


@pytest.fixture
def result_hash(tiny, learner_file):
    """Hash a cell as a new process would: with the plugins loaded again."""

    def result_hash(cell, data_dir=None):
        return Keys(Registry([tiny, learner_file]), data_dir).for_cell(cell).result.hash

    return result_hash


CHANGES = {
    "learner": {"learner": Choice("random")},
    "parameter": {"learner": Choice("counted", (("scale", 2.0),))},
    "seed": {"seed": 1},
    "draw": {"draw": 1},
    "architecture": {"architecture": "4F3-Rabs-PM2"},
    "standardise": {"preprocessing": Preprocessing(standardise=False)},
    "size": {"preprocessing": Preprocessing(size=9)},
    "channels": {"preprocessing": Preprocessing(channels=3)},
    "classifier": {"classifier": "logistic"},
    "refined": {"regime": REGIMES["U+"]},
    "not learned": {"regime": REGIMES["R"]},
    "train_per_class": {"train_per_class": 5},
    "test_per_class": {"test_per_class": 3},
    "validation_fraction": {"validation_fraction": 0.5},
    "metric": {"metric": "mean-per-class-accuracy"},
    "device": {"device": "cuda"},
    "precision": {"precision": "bf16"},
    "dataset": {"dataset": "digits"},
    "task": {"task": "another"},
}


def test_everything_that_decides_the_outcome_changes_the_key(cell, result_hash):
    hashes = {"nothing": result_hash(cell)}
    hashes |= {name: result_hash(dataclasses.replace(cell, **change)) for name, change in CHANGES.items()}
    same = [(a, b) for a in hashes for b in hashes if a < b and hashes[a] == hashes[b]]
    assert same == []


def test_every_field_of_a_cell_is_in_the_key_or_decides_nothing():
    changed = {field for change in CHANGES.values() for field in change}
    # These three have tests of their own.
    assert changed | {"test", "unlabelled", "refinement"} == list_deciding_fields()
    assert list_deciding_fields() | {"protocol", "skip"} == {field.name for field in dataclasses.fields(Cell)}


@pytest.mark.parametrize("change", [{"protocol": "another"}, {"skip": "no reason"}])
def test_what_decides_nothing_does_not_change_the_key(cell, result_hash, change):
    assert result_hash(dataclasses.replace(cell, **change)) == result_hash(cell)


def test_a_fixed_test_split_changes_the_key(cell, result_hash):
    assert result_hash(dataclasses.replace(cell, test="fixed")) != result_hash(cell)


def test_settings_of_refinement_change_the_key_of_what_is_refined_alone(cell, result_hash):
    plain, refined = (dataclasses.replace(cell, regime=REGIMES[name]) for name in ("R", "R+"))
    settings = Refinement(epochs=3)
    assert result_hash(dataclasses.replace(plain, refinement=settings)) == result_hash(plain)
    assert result_hash(dataclasses.replace(refined, refinement=settings)) != result_hash(refined)
    assert result_hash(dataclasses.replace(refined, refinement=Refinement())) == result_hash(refined)


def test_a_parameter_at_its_default_does_not_change_the_key(cell, result_hash):
    spelled = dataclasses.replace(cell, learner=Choice("counted", (("scale", 1.0),)))
    assert result_hash(spelled) == result_hash(cell)


def test_the_fingerprint_of_the_data_changes_the_key(cell, result_hash, tmp_path):
    before = result_hash(cell, tmp_path)
    (tmp_path / "version").write_text("1")
    assert result_hash(cell, tmp_path) != before


def test_the_unlabelled_images_change_the_key_by_their_content_alone(cell, result_hash, unlabelled, tmp_path):
    on_folder = dataclasses.replace(cell, unlabelled=str(unlabelled))
    before = result_hash(on_folder)
    assert before != result_hash(cell)
    moved = unlabelled.rename(tmp_path / "moved")
    assert result_hash(dataclasses.replace(cell, unlabelled=str(moved))) == before
    (moved / "0.png").write_bytes((moved / "1.png").read_bytes())
    assert result_hash(dataclasses.replace(cell, unlabelled=str(moved))) != before


@pytest.mark.parametrize("which", ["learner", "tiny"])
def test_editing_the_code_of_a_plugin_changes_the_key(cell, result_hash, tiny, learner_file, which):
    path = {"learner": learner_file, "tiny": tiny}[which]
    before = result_hash(cell)
    path.write_text(path.read_text() + "\nANSWER = 42\n")
    assert result_hash(cell) != before


@pytest.mark.parametrize("which", ["learner", "tiny"])
def test_comments_and_docstrings_of_a_plugin_do_not_change_the_key(cell, result_hash, tiny, learner_file, which):
    path = {"learner": learner_file, "tiny": tiny}[which]
    before = result_hash(cell)
    text = path.read_text().replace("A learner of the tests.", "Another text.").replace("Nearest class mean.", "Means.")
    path.write_text("# A comment.\n" + text)
    assert result_hash(cell) == before


def test_editing_another_plugin_does_not_change_the_key(cell, result_hash, tiny, learner_file, write_learner):
    before = result_hash(cell)
    other = write_learner("other")
    assert Keys(Registry([tiny, learner_file, other]), None).for_cell(cell).result.hash == before


def test_the_keys_of_a_cell_are_made_once(cell, tiny, learner_file, monkeypatch):
    made = []
    monkeypatch.setattr("featbench.store.keys.content_hash", lambda document: made.append(document) or "hash")
    keys = Keys(Registry([tiny, learner_file]), None)
    kinds = ("learned", "network", "features", "result")
    first = [getattr(keys.for_cell(cell), kind) for kind in kinds]
    count = len(made)
    again = [getattr(keys.for_cell(dataclasses.replace(cell)), kind) for kind in kinds]
    assert all(one is other for one, other in zip(first, again, strict=True))
    assert len(made) == count


def test_a_key_is_a_document_and_its_hash(cell, tiny, learner_file):
    keys = Keys(Registry([tiny, learner_file]), None)
    refined = keys.for_cell(dataclasses.replace(cell, regime=REGIMES["U+"]))
    found = [refined.learned, refined.network, *refined.features.values(), refined.result]
    assert [key.hash for key in found] == [content_hash(key.document) for key in found]
    # Each holds what it is made from: results the network, features the network, a refined network the learned one.
    assert refined.network.document["learned"] == refined.learned.document == keys.for_cell(cell).network.document
    assert refined.result.document["network"] == refined.network.document
    assert {part: key.document["part"] for part, key in refined.features.items()} == {
        part: part for part in ("all", "train", "test")
    }
    assert [key.document["network"] for key in refined.features.values()] == [refined.network.document] * 3


def test_a_learner_that_leaves_values_open_has_a_result_made_from_all_its_networks(cell, tiny, learner_file):
    keys = Keys(Registry([tiny, learner_file]), None)
    values = (0.5, 2.0)
    one, other = (dataclasses.replace(cell, learner=Choice("counted", (("scale", value),))) for value in values)
    both = dataclasses.replace(cell, learner=Choice("counted", (("scale", values),)))
    networks = [keys.for_cell(alone).network.document for alone in (one, other)]
    assert keys.for_cell(both).result.document["network"] == networks
    assert keys.for_cell(one).result.document["network"] == networks[0]


def test_the_numerical_code_of_featbench_changes_the_key(cell, result_hash, monkeypatch):
    before = result_hash(cell)
    monkeypatch.setattr("featbench.store.keys.compute_code_version", lambda *_: "another version")
    assert result_hash(cell) != before


def test_filters_without_learning_serve_every_draw_and_classifier(cell, tiny, learner_file):
    keys = Keys(Registry([tiny, learner_file]), None)
    drawn = dataclasses.replace(cell, learner=Choice("random"), regime=REGIMES["R"])
    again = dataclasses.replace(drawn, draw=1, classifier="logistic", train_per_class=5)
    assert keys.for_cell(drawn).network == keys.for_cell(again).network
    assert keys.for_cell(drawn).features["all"] == keys.for_cell(again).features["all"]
    assert keys.for_cell(drawn).features["train"] != keys.for_cell(again).features["train"]


def test_features_of_some_test_images_belong_to_their_draw_and_those_of_all_to_every_draw(cell, tiny, learner_file):
    keys = Keys(Registry([tiny, learner_file]), None)
    drawn = dataclasses.replace(cell, learner=Choice("random"), regime=REGIMES["R"], test="fixed")
    again = dataclasses.replace(drawn, draw=1)
    assert keys.for_cell(drawn).features["test"] == keys.for_cell(again).features["test"]
    some, others = (dataclasses.replace(one, test_per_class=3) for one in (drawn, again))
    more = dataclasses.replace(some, test_per_class=4)
    found = [keys.for_cell(one).features["test"] for one in (drawn, some, others, more)]
    assert len({key.hash for key in found}) == 4
    assert keys.for_cell(drawn).features["all"] == keys.for_cell(some).features["all"]
    assert keys.for_cell(drawn).network == keys.for_cell(some).network
    assert keys.for_cell(cell).learned == keys.for_cell(dataclasses.replace(cell, test_per_class=3)).learned


@pytest.mark.parametrize("which", ["data", "size", "least", "channels", "code"])
def test_what_decides_prepared_images_is_in_their_key_and_what_comes_later_is_not(tiny, tmp_path, which, monkeypatch):
    def prepared(preprocessing=Preprocessing()):  # noqa: B008
        return Keys(Registry([tiny]), tmp_path).prepared("tiny", preprocessing)

    before = prepared()
    assert prepared(Preprocessing(standardise=False, pad=True)) == before
    change = Preprocessing()
    if which == "data":
        (tmp_path / "version").write_text("1")
    elif which == "code":
        monkeypatch.setattr("featbench.store.keys.compute_code_version", lambda *_: "another version")
    else:
        change = {
            "size": Preprocessing(size=9),
            "least": Preprocessing(lcn=1.0),
            "channels": Preprocessing(channels=3),
        }[which]
    assert prepared(change) != before


def test_modules_that_prepare_images_are_a_part_of_the_numerical_code():
    assert set(PREPARING) < set(NUMERICAL)
    assert compute_code_version(PREPARING) != compute_code_version()


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of featbench's sources, whose hashes are taken in place of the real ones."""
    assert Path(featbench.__file__).parent == PACKAGE
    shutil.copytree(PACKAGE, tmp_path / "copy", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr("featbench.store.keys.PACKAGE", tmp_path / "copy")
    monkeypatch.setattr("featbench.store.keys.compute_code_version", compute_code_version.__wrapped__)
    # Files are read each time, and texts that were seen before not parsed again.
    monkeypatch.setattr("featbench.store.keys.code_hash", cache(code_hash))
    return tmp_path / "copy"


FEATURE_FILES = ("features/spatial_pyramid.py", "features/descriptors.py", "sparse/fista.py")

KINDS = {**dict.fromkeys(find_code_files(CLASSIFYING), False), **dict.fromkeys(FEATURE_FILES, True)}


def test_editing_a_classifying_module_changes_results_and_leaves_features_as_they_are(cell, tiny, learner_file, copied):
    def hashes():
        keys = Keys(Registry([tiny, learner_file]), None).for_cell(cell)
        return [key.hash for key in (keys.result, keys.features["all"], keys.learned, keys.network)]

    for name, changes_features in KINDS.items():
        before = hashes()
        path = copied / name
        path.write_text(path.read_text() + "\n# A comment.\n")
        assert hashes() == before, name
        path.write_text(path.read_text() + "\nANSWER = 42\n")
        changed = [one != other for one, other in zip(before, hashes(), strict=True)]
        assert changed == [True, *[changes_features] * 3], name


def test_results_are_computed_again_from_the_features_after_a_classifying_module_was_edited(compare_tiny, copied, home):
    before = compare_tiny("--regimes", "R")
    features = {path: path.stat().st_mtime_ns for path in (home / "artifacts").rglob("*") if path.is_file()}
    path = copied / "classification/training.py"
    path.write_text(path.read_text() + "\nANSWER = 42\n")
    after = compare_tiny("--regimes", "R")
    assert "6 cells computed, 0 read from the store" in after.err
    assert after.row("random")["scores"] == before.row("random")["scores"]
    assert {path: path.stat().st_mtime_ns for path in features} == features


def test_alternatives_of_a_classifier_change_the_result_but_not_the_features(cell, tiny, learner_file):
    keys = Keys(Registry([tiny, learner_file]), None)
    texts = ("logistic", "logistic(strength=1.0)", "logistic(strength=1.0|2.0)", "logistic(strength=2.0|1.0)")
    cells = [dataclasses.replace(cell, classifier=text) for text in texts]
    assert len({keys.for_cell(one).result.hash for one in cells}) == 4
    assert len({keys.for_cell(one).features["all"].hash for one in cells}) == 1


def test_classifier_parameters_change_the_result_but_not_the_features(cell, tiny, learner_file):
    keys = Keys(Registry([tiny, learner_file]), None)
    plain, other = (dataclasses.replace(cell, classifier=text) for text in ("logistic", "logistic(standardise=False)"))
    assert keys.for_cell(plain).result != keys.for_cell(other).result
    assert keys.for_cell(plain).features["all"] == keys.for_cell(other).features["all"]


def test_unlabelled_images_of_a_data_set_change_the_key_by_their_content(cell, tiny, learner_file, tmp_path):
    folder = image_folder(tmp_path / "bsds500", 3, (9, 9))
    on_set, on_folder = (dataclasses.replace(cell, unlabelled=name) for name in ("berkeley", str(folder)))

    def result(one):
        return Keys(Registry([tiny, learner_file]), tmp_path).for_cell(one).result.hash

    before = result(on_set)
    assert len({before, result(on_folder), result(cell)}) == 3
    (folder / "0.png").write_bytes((folder / "1.png").read_bytes())
    assert result(on_set) != before


def test_random_filters_depend_on_the_seed_and_the_device(cell, tiny, learner_file):
    keys = Keys(Registry([tiny, learner_file]), None)
    drawn = dataclasses.replace(cell, learner=Choice("random"), regime=REGIMES["R"])
    changes = [{}, {"seed": 1}, {"device": "cuda"}, {"architecture": "8F3"}, {"preprocessing": Preprocessing(size=9)}]
    hashes = {keys.for_cell(dataclasses.replace(drawn, **change)).network.hash for change in changes}
    assert len(hashes) == len(changes)


def test_editing_a_classifier_changes_the_results_but_not_the_features(compare_tiny, write_plugin, tiny, home):
    source = tiny.read_text().replace('"nearest"', '"mine"')
    start, end = source.index("class _Means"), source.index("@featbench.hookimpl\ndef featbench_datasets")
    hook = "\n@featbench.hookimpl\ndef featbench_classifiers():\n    return [Nearest()]\n"
    path = write_plugin("mine", "import numpy as np\nimport featbench\n" + source[start:end] + hook)
    options = ("--classifiers", "mine", "--regimes", "R")
    before = compare_tiny(*options, plugins=[path])
    features = {path: path.stat().st_mtime_ns for path in (home / "artifacts/features").iterdir()}
    path.write_text(path.read_text().replace("argmin", "argmax"))
    after = compare_tiny(*options, plugins=[path])
    assert "4 cells computed, 2 read from the store" in after.err
    assert before.row("random")["mean"] > after.row("random")["mean"]
    assert {path: path.stat().st_mtime_ns for path in (home / "artifacts/features").iterdir()} == features


def test_learned_filters_belong_to_their_draw(cell, tiny, learner_file):
    keys = Keys(Registry([tiny, learner_file]), None)
    assert keys.for_cell(cell).learned != keys.for_cell(dataclasses.replace(cell, draw=1)).learned
    assert keys.for_cell(cell).learned == keys.for_cell(dataclasses.replace(cell, regime=REGIMES["U+"])).learned


def test_a_second_classifier_reuses_filters_and_features(compare_tiny, learner_file, log, home):
    options = ("--features", "counted", "--regimes", "U")
    assert compare_tiny(*options, plugins=[learner_file]).code == 0
    features = sorted(path.name for path in (home / "artifacts/features").glob("*.npy"))
    ran = compare_tiny(*options, "--classifiers", "nearest,guess", plugins=[learner_file])
    assert ran.code == 0
    assert {row["classifier"] for row in ran.rows if row["learner"] == "counted"} == {"nearest", "guess"}
    assert log.count("counted") == 2  # one for each draw
    assert sorted(path.name for path in (home / "artifacts/features").glob("*.npy")) == features


def test_u_and_u_plus_share_their_filters(compare_tiny, learner_file, log):
    ran = compare_tiny("--features", "counted", plugins=[learner_file])
    assert [row["status"] for row in ran.rows if row["regime"] in ("U", "U+")] == ["ok", "ok"]
    assert log.count("counted") == 2


def test_editing_a_plugin_reruns_its_cells_and_no_others(compare_tiny, write_learner, log):
    one, two = write_learner("one"), write_learner("two")
    options = ("--features", "one,two", "--regimes", "U")
    before = compare_tiny(*options, plugins=[one, two])
    one.write_text(one.read_text().replace("return weight", "return weight.abs() + 1"))
    after = compare_tiny(*options, plugins=[one, two])
    assert (log.count("one"), log.count("two")) == (4, 2)
    assert "2 cells computed, 6 read from the store" in after.err
    assert before.row("one")["scores"] != after.row("one")["scores"]
    assert before.row("two") == after.row("two")


def test_another_version_of_the_data_is_loaded_and_compared_again(compare_tiny, tmp_path, log):
    options = ("--regimes", "R", "--data-dir", tmp_path)
    before = compare_tiny(*options)
    (tmp_path / "version").write_text("1")
    after = compare_tiny(*options)
    assert "6 cells computed" in after.err
    assert log.count("load") == 2
    assert before.row("random")["scores"] != after.row("random")["scores"]


def test_editing_a_metric_changes_the_results_scored_by_it_and_nothing_else(cell, tiny, learner_file, write_plugin):
    source = """
        import featbench

        def half(predictions, labels, classes):
            return 0.5

        @featbench.hookimpl
        def featbench_metrics():
            return [featbench.Metric("half", half)]
    """
    path = write_plugin("metric", source)
    by_metric = dataclasses.replace(cell, metric="half")

    def hashes():
        keys = Keys(Registry([tiny, learner_file, path]), None)
        mine, other = keys.for_cell(by_metric), keys.for_cell(cell)
        return mine.result.hash, other.result.hash, mine.features["all"].hash, mine.network.hash, mine.learned.hash

    before = hashes()
    assert before[0] != before[1]
    path.write_text("# A comment.\n" + path.read_text())
    assert hashes() == before
    path.write_text(path.read_text().replace("return 0.5", "return 0.25"))
    assert [one != other for one, other in zip(before, hashes(), strict=True)] == [True, *[False] * 4]
