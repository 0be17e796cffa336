"""Comparisons on photographs as they are: images of several sizes, features as local vectors."""

import json

import numpy as np
import pytest

from featbench.comparison import Workbench
from featbench.errors import ArchitectureError
from featbench.experiment.request import Request
from featbench.experiment.run_cell import run_cell
from featbench.experiment.steps import Steps
from featbench.features.rows import PackedMaps, Rows
from featbench.plugins.pyramids import CodedSift
from featbench.registry import Registry

SIZES = '''
import os
import numpy as np
import featbench

class Sizes(featbench.Dataset):
    """Stripes of three directions in noise, 10 images each, of 8 to 12 rows and columns; half of them test."""
    name = "sizes"
    alike = False
    def fingerprint(self, data_dir):
        return self.name
    def load(self, data_dir):
        with open(os.environ["FEATBENCH_TEST_LOG"], "a") as file:
            file.write("load\\n")
        generator = np.random.default_rng(0)
        labels = np.repeat(np.arange(3), 10)
        test = np.tile(np.arange(10) >= 5, 3)
        pixels = []
        for label, tested in zip(labels, test):
            height, width = (9, 9) if self.alike and not tested else generator.integers(8, 13, size=2)
            rows, columns = np.mgrid[:height, :width]
            stripes = np.sin((rows, columns, rows + columns)[label] + generator.uniform(0, 6))
            pixels.append((stripes + 0.4 * generator.normal(size=stripes.shape)).astype(np.float32))
        return featbench.Images(pixels, labels, ("a", "b", "c"), test)

class Alike(Sizes):
    """The same, but images that train have one size."""
    name = "alike"
    alike = True

@featbench.hookimpl
def featbench_datasets():
    return [Sizes(), Alike()]

def protocol(name, test):
    return featbench.Protocol(
        name=name, summary="", dataset="sizes", architecture="4F3-Rabs-PA2/2",
        preprocessing=featbench.Preprocessing(size=None), train_per_class=5, test=test,
        features=("sift(size=4,step=2)",), regimes=("fixed",), classifiers=("pmk-svm(codebook=8,samples=500)",),
        draws=2,
    )

@featbench.hookimpl
def featbench_protocols():
    return [protocol("sizes", "rest"), protocol("own-sizes", "fixed")]
'''

SIFT = "sift(size=4,step=2)"
PMK = "pmk-svm(codebook=8,samples=500)"
SCSPM = "scspm(codebook=16,samples=500,size=4,step=2)"
LLC = "llc(codebook=8,samples=500,size=4,step=2)"


@pytest.fixture
def sizes(write_plugin):
    return write_plugin("sizes", SIZES)


@pytest.fixture
def compare_sizes(run, sizes):
    """Call `featbench compare` on images of several sizes; rows come as JSON."""

    def compare(*options, plugins=()):
        named = [text for plugin in (sizes, *plugins) for text in ("--plugin", plugin)]
        rest = ("--no-track", "--format", "json", "--device", "cpu")
        return run("compare", "--protocol", "sizes", *rest, *named, *options)

    return compare


def plan(plugins, protocol="sizes", **request):
    return Workbench(plugins=plugins).plan(Request(protocol, device="cpu", draws=1, **request))


def reasons(ran):
    """Return why rows were skipped, by learner, regime and classifier."""
    return {(r["learner"], r["regime"], r["classifier"]): r["message"] for r in ran.rows if r["status"] == "skipped"}


DIFFER = "the images differ in size, and "
REMEDY = ": a protocol that resizes and pads is needed"
ROWS_ALONE = DIFFER + "so do their features, of which {} takes rows alone" + REMEDY


# End to end.


def test_sift_and_spatial_pyramids_end_to_end(compare_sizes, log, home):
    first = compare_sizes()
    assert first.code == 0
    assert {row["status"] for row in first.rows} == {"ok", "skipped"}
    assert (first.row(SIFT)["n"], first.row(SIFT)["classifier"]) == (2, PMK)
    assert first.row(SIFT)["mean"] > 75 > 50 > first.row("chance")["mean"]
    assert reasons(first) == {("raw-pixels", "fixed", "logistic"): ROWS_ALONE.format("logistic")}
    second = compare_sizes()
    assert second.out == first.out
    assert "nothing to compute: all 4 cells were in the store" in second.err
    assert log.count("load") == 1
    # One of SIFT and one of chance, for both draws.
    assert sorted(np.load(path).shape[1] for path in (home / "artifacts/features").glob("*.npy")) == [1, 128]


def test_features_of_each_image_lie_in_the_store_with_its_grid(compare_sizes, sizes, home):
    compare_sizes()
    images = Registry([sizes]).dataset("sizes").load(None).pixels
    grids = [[(side - 4) // 2 + 1 for side in image.shape] for image in images]
    (record,) = [
        about
        for path in (home / "artifacts/features").glob("*.json")
        if (about := json.loads(path.read_text())["about"])["grids"]
    ]
    assert record["grids"] == grids
    assert len({tuple(grid) for grid in grids}) > 4
    (array,) = [a for path in (home / "artifacts/features").glob("*.npy") if (a := np.load(path)).shape[1] == 128]
    assert len(array) == np.prod(grids, axis=1).sum()


@pytest.mark.parametrize("protocol", ["sizes", "own-sizes"])
@pytest.mark.parametrize("learner", [SIFT, "random"])
def test_a_cell_gives_the_same_with_and_without_a_store(sizes, protocol, learner):
    cell = plan([sizes], protocol, features=[learner], regimes=["fixed" if learner == SIFT else "R"])[-1]
    assert cell.skip == ""
    bench = Workbench(plugins=[sizes])
    alone = run_cell(cell, Steps(Registry([sizes]), None))
    for outcome in (run_cell(cell, bench.steps), run_cell(cell, bench.steps)):
        assert outcome.score == alone.score
        assert outcome.report == alone.report
        assert np.array_equal(outcome.predictions, alone.predictions)


@pytest.mark.parametrize("protocol", ["sizes", "own-sizes"])
def test_features_are_those_of_each_image_alone(sizes, protocol):
    cell = plan([sizes], protocol, features=["random"], regimes=["R"])[-1]
    bench = Workbench(plugins=[sizes])
    for steps in (Steps(bench.registry, None), bench.steps, bench.steps):
        images, maps = steps.load(cell.dataset, cell.preprocessing)
        split = steps.split(cell, images)
        network, _ = steps.learn(cell, split, maps)
        features, _ = steps.extract(cell, split, network, maps)
        for part, chosen in ((features.train, split.train), (features.test, split.test)):
            alone = [network(maps[i : i + 1])[0].detach() for i in chosen]
            found = list(part.blocks())
            assert np.concatenate([block.grids for block in found]).tolist() == [list(one.shape[1:]) for one in alone]
            expected = np.concatenate([one.flatten(1).T for one in alone])
            vectors = np.concatenate([block.vectors for block in found])
            np.testing.assert_allclose(vectors, expected, rtol=2e-3, atol=1e-3)


def test_training_images_of_one_size_and_test_images_of_several(sizes):
    cells = plan([sizes], "own-sizes", dataset="alike")
    for steps in (Steps(Registry([sizes]), None), Workbench(plugins=[sizes]).steps):
        images, maps = steps.load("alike", cells[-1].preprocessing)
        split = steps.split(cells[-1], images)
        features, _ = steps.extract(cells[-1], split, steps.learn(cells[-1], split, maps)[0], maps)
        assert (type(features.train), type(features.test)) == (Rows, PackedMaps)
        assert run_cell(cells[-1], steps).score.value > 60


# What makes no sense.


def test_classifiers_of_rows_are_skipped_with_their_reason(compare_sizes):
    ran = compare_sizes("--classifiers", f"logistic,{PMK},knn", "--draws", "1")
    assert ran.code == 0
    places = [("raw-pixels", "logistic"), ("raw-pixels", "knn"), (SIFT, "logistic"), (SIFT, "knn")]
    assert reasons(ran) == {(one, "fixed", name): ROWS_ALONE.format(name) for one, name in places}
    assert [row["classifier"] for row in ran.rows if row["learner"] == SIFT and row["status"] == "ok"] == [PMK]


def test_random_filters_are_classified_and_refined_ones_skipped(compare_sizes):
    ran = compare_sizes("--features", "random", "--regimes", "R,R+", "--draws", "1")
    assert ran.code == 0
    assert ran.row("random", "R")["status"] == "ok"
    refined = DIFFER + "only images of one size can be refined on" + REMEDY
    assert reasons(ran)["random", "R+", PMK] == refined


def test_filters_are_learned_from_patches_of_images_of_several_sizes(compare_sizes, write_learner, log):
    body = """
        log("sizes" + str(len(patches.maps.images.sizes)))
        return patches.sample(bank.filters)
    """
    ran = compare_sizes("--features", "counted", "--regimes", "U", plugins=[write_learner("counted", body)])
    assert ran.row("counted")["status"] == "ok"
    assert ran.row("counted")["mean"] > 50
    assert all(int(line.removeprefix("sizes")) > 4 for line in log.lines() if line.startswith("sizes"))


def test_a_learner_that_gives_rows_is_no_match_for_a_classifier_of_local_vectors(compare_sizes):
    ran = compare_sizes("--features", SCSPM, "--regimes", "U", "--draws", "1")
    expected = f"scspm gives one row of features an image, without the local vectors that {PMK} takes: pair it with a "
    assert reasons(ran)[SCSPM, "U", PMK] == expected + "classifier of rows, as linear-svm"


def test_the_smallest_image_decides_what_fits(compare_sizes, sizes):
    ran = compare_sizes("--features", "sift,sift(size=8),sift(size=9)", "--draws", "1")
    found = {learner: text for (learner, _, _), text in reasons(ran).items()}
    assert found["sift"] == "patches of 16×16 pixels do not fit images of 8×8: try sift(size=8)"
    assert found["sift(size=9)"] == "patches of 9×9 pixels do not fit images of 8×8: try sift(size=8)"
    assert ran.row("sift(size=8)")["status"] == "ok"
    with pytest.raises(ArchitectureError, match="8×8 came in"):
        plan([sizes], features=["random"], regimes=["R"], stages="4F9-Rabs")
    assert plan([sizes], features=["random"], regimes=["R"], stages="4F8-Rabs")[-1].skip == ""


# Alternatives of a classifier.


def test_alternatives_of_a_classifier_are_decided_on_validation_images(compare_sizes, store):
    texts = [f"pmk-svm({part}codebook=8,samples=500)" for part in ("C=1e-06|10,", "C=1e-06,", "")]
    ran = compare_sizes("--classifiers", ",".join(texts), "--draws", "2")
    assert ran.code == 0
    rows = {row["classifier"]: row for row in ran.rows if row["learner"] == SIFT}
    assert set(rows) == {"pmk-svm(C=1e-06|10.0,codebook=8,samples=500)", *texts[1:]}
    chosen = [document for _, document in store.records("results") if "|" in document["cell"]["classifier"]]
    assert len(chosen) == 2
    for document in chosen:
        report = document["report"]
        assert report["classifier"] in (
            "pmk-svm(C=1e-06,codebook=8,samples=500)",
            "pmk-svm(C=10.0,codebook=8,samples=500)",
        )
        assert 0 <= report["validation_accuracy"] <= 100
        canonical = report["classifier"].replace("C=10.0,", "")
        assert document["score"]["value"] == rows[canonical]["scores"][document["cell"]["draw"]]
    again = compare_sizes("--classifiers", ",".join(texts), "--draws", "2")
    assert again.out == ran.out
    assert "nothing to compute" in again.err


# Networks that are learned are kept.


def learn_calls(monkeypatch):
    calls = []
    original = CodedSift.network

    def watched(self, shape, maps, seed):
        calls.append(shape)
        return original(self, shape, maps, seed)

    monkeypatch.setattr(CodedSift, "network", watched)
    return calls


def forget(home, *kinds):
    for kind in kinds:
        for path in (home / kind).iterdir():
            path.unlink()


def test_scspm_end_to_end_and_its_words_come_back_from_the_store(compare_sizes, home, monkeypatch):
    calls = learn_calls(monkeypatch)
    options = ("--features", SCSPM, "--regimes", "U", "--classifiers", "linear-svm", "--draws", "1")
    first = compare_sizes(*options)
    assert first.code == 0
    assert first.row(SCSPM)["mean"] > 45
    assert reasons(first) == {("raw-pixels", "fixed", "linear-svm"): ROWS_ALONE.format("linear-svm")}
    assert calls == [(1, 8, 8)]
    features = {path.name: path.read_bytes() for path in (home / "artifacts/features").glob("*.npy")}
    # The rows and chance; 16 words in 1 + 4 + 16 cells.
    assert sorted(np.load(home / "artifacts/features" / name).shape for name in features) == [(30, 1), (30, 336)]
    forget(home, "results", "artifacts/features")
    again = compare_sizes(*options)
    assert again.out.count('"ok"') == first.out.count('"ok"')
    assert again.row(SCSPM)["scores"] == first.row(SCSPM)["scores"]
    assert {path.name: path.read_bytes() for path in (home / "artifacts/features").glob("*.npy")} == features
    assert len(calls) == 1


def test_a_damaged_network_is_learned_again(sizes, home, monkeypatch):
    calls = learn_calls(monkeypatch)
    cell = plan([sizes], features=[LLC], regimes=["U"], classifiers=["knn"])[-1]
    first = run_cell(cell, Workbench(plugins=[sizes]).steps)
    (path,) = (home / "artifacts/networks").glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    forget(home, "artifacts/features")
    again = run_cell(cell, Workbench(plugins=[sizes]).steps)
    assert len(calls) == 2
    assert np.array_equal(again.predictions, first.predictions)


def test_classifiers_share_a_network_and_another_codebook_is_learned(sizes, home, monkeypatch):
    calls = learn_calls(monkeypatch)
    steps = Workbench(plugins=[sizes]).steps
    for learner, classifier in ((LLC, "knn"), (LLC, "linear-svm"), (LLC.replace("=8", "=9"), "knn")):
        run_cell(plan([sizes], features=[learner], regimes=["U"], classifiers=[classifier])[-1], steps)
    assert len(calls) == 2
    assert len(list((home / "artifacts/networks").glob("*.safetensors"))) == 2
