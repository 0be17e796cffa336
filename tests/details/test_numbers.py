"""The numbers of a row against scikit-learn's, and against the table of the comparison."""

import numpy as np
import pytest
from helpers.pages import read_csv, read_page
from sklearn.metrics import accuracy_score, confusion_matrix, recall_score

PROTOCOL = """
import featbench

@featbench.hookimpl
def featbench_protocols():
    return [featbench.Protocol(
        name="other", summary="", dataset="tiny", architecture="4F3-Rabs-PA2/2",
        preprocessing=featbench.Preprocessing(), features=("random",), classifiers=("CLASSIFIER",), draws=3,
        train_per_class=PER_CLASS, test="TEST", metric="METRIC", test_per_class=AT_MOST,
    )]
"""

OWN_TEST = """
import numpy as np
import featbench

class Uneven(featbench.Dataset):
    \"\"\"Three classes, of which 5, 6 and 2 images test; the last class is not tested in a set of its own.\"\"\"
    name = "uneven"
    def fingerprint(self, data_dir):
        return "0"
    def load(self, data_dir):
        labels = np.repeat([2, 0, 1], [11, 14, 9])
        test = np.zeros(34, bool)
        test[[0, 3, 4, 5, 9, 12, 13, 20, 22, 23, 24]] = True
        pixels = np.random.default_rng(1).normal(size=(34, 6, 6)) + labels[:, None, None]
        return featbench.Images(pixels.astype(np.float32), labels, ("a", "not tested", "c"), test)

@featbench.hookimpl
def featbench_datasets():
    return [Uneven()]
"""


@pytest.fixture
def protocol(write_plugin):
    """Write a plugin with the protocol `other`."""

    def write(per_class=3, test="rest", metric="accuracy", at_most=None, classifier="nearest"):
        source = PROTOCOL.replace("PER_CLASS", str(per_class)).replace("TEST", test).replace("METRIC", metric)
        return write_plugin("other", source.replace("AT_MOST", str(at_most)).replace("CLASSIFIER", classifier))

    return write


def group_by_draw(predictions):
    draws = {}
    for line in predictions:
        draws.setdefault(int(line["draw"]), []).append(line)
    return [draws[draw] for draw in sorted(draws)]


def check_against_scikit_learn(folder, scores=None):
    """Check the three CSV files of a row against one another, and the accuracies of its draws; returns the draws."""
    classes, draws = read_csv(folder / "classes.csv"), group_by_draw(read_csv(folder / "predictions.csv"))
    names = [line["class"] for line in classes]
    pairs = [([one["true class"] for one in draw], [one["predicted class"] for one in draw]) for draw in draws]
    if scores is not None:
        assert [100 * accuracy_score(*pair) for pair in pairs] == scores
    truth, predicted = ([name for pair in pairs for name in pair[side]] for side in (0, 1))
    counts = [[int(line[name]) for name in names] for line in read_csv(folder / "confusion.csv")]
    assert np.array_equal(counts, confusion_matrix(truth, predicted, labels=names))
    assert [line["true class"] for line in read_csv(folder / "confusion.csv")] == names
    for number, line in enumerate(classes):
        tested = [pair for pair in pairs if line["class"] in pair[0]]
        recalls = [
            100 * recall_score(*pair, labels=[line["class"]], average="macro", zero_division=0) for pair in tested
        ]
        assert int(line["draws"]) == len(recalls)
        assert (int(line["tests"]), int(line["right"])) == (sum(counts[number]), counts[number][number])
        if recalls:
            assert float(line["accuracy"]) == pytest.approx(np.mean(recalls), abs=1e-9)
            assert 0 <= float(line["low"]) <= float(line["accuracy"]) <= float(line["high"]) <= 100
        else:
            assert (line["accuracy"], line["low"], line["high"]) == ("", "", "")
        assert line["std"] == "" if len(recalls) < 2 else float(line["std"]) == pytest.approx(np.std(recalls, ddof=1))
        images = {one["image"] for draw in draws for one in draw if one["true class"] == line["class"]}
        assert int(line["images"]) == len(images)
    rights = [one["right"] == "1" for draw in draws for one in draw]
    assert rights == [one == other for one, other in zip(truth, predicted, strict=True)]
    return draws


@pytest.mark.parametrize("test", ["rest", "held-out"])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_a_folder(photographs, compare_row, explain_row, protocol, test, classes):
    root = photographs([f"kind {k}" for k in range(classes)])
    plugin = protocol(test=test)
    row = compare_row(root, "other", [plugin])
    draws = check_against_scikit_learn(explain_row(plugins=[plugin]), row["scores"])
    tested = [{one["file"] for one in draw} for draw in draws]
    assert (tested[0] == tested[1] == tested[2]) == (test == "held-out")
    for draw in draws:
        assert all(one["file"].startswith(f"{one['true class']}/") for one in draw)


@pytest.mark.parametrize("per_class", [3, None])
def test_test_images_of_the_data_set(compare_row, explain_row, protocol, write_plugin, per_class):
    plugins = [write_plugin("uneven", OWN_TEST), protocol(per_class, "fixed")]
    row = compare_row("uneven", "other", plugins)
    folder = explain_row(plugins=plugins)
    draws = check_against_scikit_learn(folder, row["scores"])
    assert len(draws) == (3 if per_class else 1)
    assert {tuple(one["image"] for one in draw) for draw in draws} == {
        tuple(map(str, [0, 3, 4, 5, 9, 12, 13, 20, 22, 23, 24]))
    }
    assert {one["file"] for draw in draws for one in draw} == {""}
    assert read_csv(folder / "classes.csv")[1] == {
        **{"class": "not tested", "images": "0", "tests": "0", "right": "0", "draws": "0"},
        **dict.fromkeys(("accuracy", "std", "low", "high"), ""),
    }
    assert "no image tested" in read_page(folder / "index.html").text


@pytest.mark.parametrize("at_most", [1, 4])
def test_few_test_images_of_each_class(photographs, compare_row, explain_row, protocol, at_most):
    plugin = protocol(at_most=at_most)
    row = compare_row(photographs(), "other", [plugin])
    draws = check_against_scikit_learn(explain_row(plugins=[plugin]), row["scores"])
    assert [len(draw) for draw in draws] == [3 * at_most] * 3


@pytest.mark.parametrize("metric", ["error", "mean-per-class-accuracy", "macro-f1", "balanced", "top-5-accuracy"])
def test_a_metric_that_is_not_accuracy(photographs, compare_row, explain_row, protocol, metric):
    plugin = protocol(metric=metric, classifier="logistic")
    root = photographs([f"kind {k}" for k in range(7)])
    row = compare_row(root, "other", [plugin])
    folder = explain_row(plugins=[plugin])
    draws = check_against_scikit_learn(folder)
    text = read_page(folder / "index.html").text
    assert f"The comparison's score is {metric}; everything from here on counts first predictions alone." in text
    assert f"{row['mean']:.1f} ± {row['std']:.1f} % {metric}" in text
    if metric == "error":
        assert row["scores"] == [100 * np.mean([one["right"] == "0" for one in draw]) for draw in draws]


@pytest.mark.parametrize("draws", [1, 2, 6])
def test_draws(photographs, compare_row, explain_row, draws):
    row = compare_row(photographs(), draws=draws)
    folder = explain_row()
    assert len(check_against_scikit_learn(folder, row["scores"])) == draws
    over = "one draw" if draws == 1 else f"mean ± standard deviation over {draws} draws"
    assert over in read_page(folder / "index.html").text


@pytest.mark.parametrize("row", ["best", "1", "raw-pixels", "chance", "chance – guess", "random R nearest"])
def test_every_way_to_name_a_row(photographs, compare_row, explain_row, row):
    compare_row(photographs())
    check_against_scikit_learn(explain_row(row))


def test_values_that_validation_chose_are_on_the_page(photographs, compare_row, explain_row):
    compare_row(photographs(), features=["kmeans(patches=100|200)"], regimes=["U"], classifiers=["logistic"])
    text = read_page(explain_row("kmeans(patches=100|200)") / "index.html").text
    assert "chosen on validation images" in text
    assert text.count("kmeans(patches=100)") + text.count("kmeans(patches=200)") == 2


def test_a_data_set_that_comes_with_scikit_learn(compare_row, explain_row):
    row = compare_row("digits", "digits", draws=2, classifiers=["knn"])
    draws = check_against_scikit_learn(explain_row(), row["scores"])
    assert [len(draw) for draw in draws] == [1697, 1697]
