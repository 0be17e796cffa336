"""Rows of comparisons as models: each built-in learner and classifier gives the comparison's numbers, to the bit."""

import numpy as np
import pytest
from PIL import Image

from featbench import compare, load, read_image
from featbench.comparison import Workbench
from featbench.errors import ModelError, UsageError
from featbench.execution.stored_comparison import StoredComparison
from featbench.model.exporting import fit_model
from featbench.model.folder import write_model
from featbench.model.inputs import read_inputs

LEARNERS = {
    "random": "R",
    "gabor": "fixed",
    "gabor-templates": "fixed",
    "psd(updates=3)": "U",
    "ipsd(updates=3)": "U",
    "lista(updates=3,patches=300)": "U",
    "lcod(updates=3,patches=300)": "U",
    "conv-psd(updates=2)": "U",
    "kmeans": "U",
    "kmeans-hard": "U",
    "ica(patches=2000)": "U",
    "pca(patches=2000)": "U",
    "rbm(updates=3)": "U",
    "autoencoder(updates=3)": "U",
    "sparse-coding(updates=3,patches=300)": "U",
    "sift(size=8,step=4)": "fixed",
    "hog(cell=4)": "fixed",
    "llc(size=8,step=4,codebook=9)": "U",
    "scspm(size=8,step=4,codebook=9)": "U",
    "macrofeatures(size=4,step=2,codebook=9)": "U",
    "convnet": "R+",
    "psd(updates=3|4)": "U",
}

CLASSIFIERS = (
    *("logistic", "logistic(penalty=l1)", "linear-svm", "linear-svm(loss=hinge)", "linear-svm(C=0.1|1)", "rbf-svm"),
    *("rbf-svm(multiclass=ovr)", "knn(k=3)", "knn(metric=cosine)", "knn(standardise=false)", "mlp(epochs=3,hidden=9)"),
    *("pmk-svm(codebook=9,levels=1)", "pmk-svm(codebook=9,levels=1,coding=soft,kernel=linear)"),
    *("pmk-svm(codebook=9,coding=sparse,multiclass=ovo)", "pyramid-match-svm"),
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three classes of ten images in colour, some of them alike."""
    folder, generator = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name in ("ant", "bee", "cat"):
        (folder / name).mkdir()
        pattern = generator.integers(60, 190, size=(20, 20, 3))
        for number in range(10):
            noisy = (pattern + generator.normal(scale=50, size=(20, 20, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def export(photos, tmp_path):
    """Compare, export the first row, load it; returns the model, the paths of the test images and what was stored."""

    def make(features="random", classifier="linear-svm", regime="R", draw=0, **asked):
        options = {"stages": "32F3-Rabs-N3-PA2/2", "train_per_class": 5, "draws": draw + 1, "device": "cpu", **asked}
        names = {"features": [features], "regimes": [regime], "classifiers": [classifier]}
        compare("digits", dataset=f"folder:{photos}", track=False, **names, **options)
        workbench = Workbench()
        comparison = StoredComparison.read(workbench.store, workbench.registry)
        row = comparison.find_row("1")
        assert row.columns["regime"] == regime, row.columns["message"]
        document, parts = fit_model(workbench, comparison, row, draw)
        write_model(tmp_path / "model", document, parts)
        cell = row.runs[draw].cell
        images, _ = workbench.steps.load(cell.dataset, cell.preprocessing)
        test = workbench.steps.split(cell, images).test
        files = sorted(photos.glob("*/*.png"))
        stored, _ = workbench.store.read_array("predictions", row.runs[draw].result.key)
        return load(tmp_path / "model"), [files[index] for index in test], np.asarray(stored)

    return make


def require_same(model, paths, stored):
    """The labels are those of the comparison; labels and scores do not depend on company, order or form."""
    whole = model.examine(read_inputs(paths))
    assert whole.labels.tolist() == stored.tolist()
    assert model.predict(paths).tolist() == [model.classes[label] for label in stored]
    assert np.isfinite(whole.scores).all()
    for some in ([3], [7, 0], [5, 4, 2, 9, 1], list(range(len(paths)))[::-1]):
        chosen = [paths[index] for index in some]
        assert np.array_equal(model.examine(read_inputs(chosen)).scores, whole.scores[some])
        arrays = [read_image(path) for path in chosen]
        assert np.array_equal(model.examine(read_inputs(np.stack(arrays))).scores, whole.scores[some])


@pytest.mark.parametrize("learner", LEARNERS)
def test_every_learner_gives_the_numbers_of_the_comparison(export, learner):
    # Few filters for pca, which has no more components than patches have values.
    stages = {"stages": "4F3-Rabs-PA2/2"} if learner.startswith("pca") else {}
    require_same(*export(learner, regime=LEARNERS[learner], **stages))


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_every_classifier_gives_the_numbers_of_the_comparison(export, classifier):
    require_same(*export(classifier=classifier))


@pytest.mark.parametrize(
    "asked",
    [
        {"regime": "R+", "refine": "epochs=2"},
        {"regime": "R+", "refine": "epochs=2,hidden=8"},
        {"regime": "U+", "features": "psd(updates=3)", "refine": "epochs=2"},
        {"regime": "fixed+", "features": "gabor", "refine": "epochs=2"},
        {"precision": "bf16"},
        {"precision": "fp16"},
        {"stages": "8F3-Rabs-PA2/2 > 8F3:4-Rabs-PA2/2"},
        {"draw": 1},
        {"seed": 5},
        {"train_per_class": 4, "test_per_class": 4},
    ],
    ids=lambda asked: ",".join(f"{name}={value}" for name, value in asked.items()),
)
def test_regimes_precisions_architectures_and_draws_give_the_numbers_of_the_comparison(export, asked):
    require_same(*export(**asked))


def test_probabilities_are_the_softmax_of_what_logistic_regression_scores(export):
    model, paths, _ = export(classifier="logistic")
    logits = model.decision_function(paths)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.predict_proba(paths), expected, rtol=1e-9)
    assert model.measure == "probability"


def test_a_machine_gives_margins_alone(export):
    model, paths, _ = export(classifier="linear-svm")
    assert not hasattr(model, "predict_proba")
    assert model.decision_function(paths[0]).shape == (1, 3)
    assert model.measure == "margin"


def test_a_guess_gives_what_the_comparison_has(export):
    model, paths, stored = export("chance", classifier="guess", regime="fixed")
    assert model.examine(read_inputs(paths)).labels.tolist() == stored.tolist()


def test_a_draw_that_is_not_there_is_refused(export):
    with pytest.raises((UsageError, IndexError)):
        workbench = Workbench()
        export()
        comparison = StoredComparison.read(workbench.store, workbench.registry)
        fit_model(workbench, comparison, comparison.find_row("1"), 3)


def test_predictions_that_differ_from_the_stored_ones_are_refused(export, home):
    export()
    workbench = Workbench()
    comparison = StoredComparison.read(workbench.store, workbench.registry)
    row = comparison.find_row("1")
    key = row.runs[0].result.key
    stored, _ = workbench.store.read_array("predictions", key)
    workbench.store.write_array("predictions", key, 2 - np.asarray(stored), {})
    with pytest.raises(ModelError, match="test images otherwise than the comparison did"):
        fit_model(Workbench(), comparison, row, 0)


def test_data_that_have_changed_are_refused(photos, tmp_path, monkeypatch):
    folder = tmp_path / "copy"
    for path in sorted(photos.glob("*/*.png")):
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        (folder / path.parent.name / path.name).write_bytes(path.read_bytes())
    names = {"features": ["random"], "regimes": ["R"], "classifiers": ["linear-svm"], "stages": "4F3-Rabs-PA2/2"}
    compare("digits", dataset=f"folder:{folder}", train_per_class=5, draws=1, track=False, **names)
    Image.fromarray(np.arange(200, dtype=np.uint8).repeat(2).reshape(20, 20)).save(folder / "ant" / "0.png")
    workbench = Workbench()
    comparison = StoredComparison.read(workbench.store, workbench.registry)
    with pytest.raises(ModelError, match="was computed from other data or by other code than are here now"):
        fit_model(workbench, comparison, comparison.find_row("1"), 0)
