"""The answer in words under a table."""

import numpy as np
import pytest
from PIL import Image

import featbench
from featbench.comparison import Workbench
from featbench.conclusion.answer import answer, compute_p_values
from featbench.conclusion.contenders import Contender, find_contenders
from featbench.experiment.request import Request


class Unbalanced:
    """Digits under metrics of several kinds, on classes of several sizes."""

    @featbench.hookimpl
    def featbench_protocols(self):
        return [self.make(metric) for metric in ("accuracy", "error", "mean-per-class-accuracy", "macro-f1")]

    def make(self, metric):
        return featbench.Protocol(
            name=metric,
            summary="A test.",
            dataset="folder",
            architecture="8F3-Rabs-N3-PA2/2",
            preprocessing=featbench.Preprocessing(),
            train_per_class=4,
            test="rest",
            features=("random", "gabor"),
            draws=3,
            metric=metric,
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Bars that lie, stand, or do not; 20, 10 and 8 of them, under noise."""
    generator, root = np.random.default_rng(0), tmp_path_factory.mktemp("bars")
    for name, count in (("lying", 20), ("standing", 10), ("none", 8)):
        (root / name).mkdir()
        for number in range(count):
            image = generator.integers(0, 120, size=(10, 10))
            place = generator.integers(2, 8)
            if name != "none":
                image[(place, slice(None)) if name == "lying" else (slice(None), place)] += 110
            Image.fromarray(image.astype(np.uint8)).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def workbench(tmp_path_factory):
    return Workbench(plugins=[Unbalanced()], home=tmp_path_factory.mktemp("store"))


def ask(workbench, folder, protocol=None, **asked):
    request = Request(protocol=protocol, dataset=f"folder:{folder}", **asked)
    return workbench.compare(request, track=False), request


@pytest.mark.parametrize("metric", ["accuracy", "error", "mean-per-class-accuracy"])
def test_what_was_right_image_by_image_gives_the_scores_of_all_draws(metric, workbench, folder):
    comparison, _ = ask(workbench, folder, metric, regimes=["R", "fixed"])
    contenders = find_contenders(workbench, comparison)
    assert len(contenders) == len(comparison.rows) == 4
    for contender, (_, row) in zip(contenders, comparison.rows.iterrows(), strict=True):
        right = 100 * np.nanmean(contender.correct, axis=1)
        expected = 100 - right if metric == "error" else right
        assert expected == pytest.approx(np.array(row["scores"]))
        assert contender.score == pytest.approx(row["mean"])
        assert contender.name == f"{row['learner']} {row['label']} {row['classifier']}"
        assert contender.extract_milliseconds == pytest.approx(1000 * row["extract_seconds"] / 38)


@pytest.mark.parametrize("metric, better", [("accuracy", max), ("error", min)])
def test_the_best_row_is_the_best_of_its_metric(metric, better, workbench, folder):
    comparison, request = ask(workbench, folder, metric, regimes=["R", "fixed"])
    rows = comparison.rows
    best = rows[rows["mean"] == better(rows["mean"])].iloc[0]
    first = answer(workbench, comparison, request).splitlines()[0]
    assert first.startswith(
        f"Best: {best['learner']} {best['label']} {best['classifier']}, {metric} {best['mean']:.1f} %"
    )


def test_every_other_row_is_alike_or_worse(workbench, folder):
    comparison, request = ask(workbench, folder, "accuracy", regimes=["R", "fixed"])
    words = answer(workbench, comparison, request)
    for contender in find_contenders(workbench, comparison):
        assert words.count(f"{contender.name}") >= 1
    assert "Paired test on the same test images and draws" in words
    assert "featbench explain '" in words
    assert "featbench export '" in words


def test_a_metric_that_is_no_mean_over_images_is_not_tested_and_that_is_said(workbench, folder):
    comparison, request = ask(workbench, folder, "macro-f1", regimes=["R", "fixed"])
    words = answer(workbench, comparison, request)
    assert "is not tested: macro-f1 is no mean over test images" in words
    assert "Worse" not in words


def test_one_draw_is_tested_on_its_images_alone_and_that_is_said(workbench, folder):
    comparison, request = ask(workbench, folder, "accuracy", regimes=["R", "fixed"], draws=1)
    assert "on the same test images, of one draw" in answer(workbench, comparison, request)


def test_a_folder_is_told_what_to_try_next(workbench, folder):
    comparison, request = ask(workbench, folder, features=["random"], draws=2)
    words = answer(workbench, comparison, request, ["--home", "a store"])
    assert "--thorough compares more learners" in words
    assert "--train-per-class 4 takes more labels" in words
    assert "--channels" not in words
    assert "--home 'a store'" in words
    thorough = Request(dataset=request.dataset, thorough=True)
    assert "--thorough" not in answer(workbench, comparison, thorough)


def test_a_comparison_of_one_row_has_no_answer(workbench, folder):
    comparison, request = ask(workbench, folder, features=["chance"], regimes=["fixed"], draws=1)
    only = type(comparison)(comparison.key, comparison.runs[:1], comparison.rows[:1])
    assert answer(workbench, only, request) == ""


def contender(name, correct):
    return Contender(name, None, 0.0, 0.0, np.asarray(correct, dtype=float), None)


def test_p_values_are_adjusted_for_all_pairs():
    generator = np.random.default_rng(0)
    rows = [contender(str(number), generator.integers(0, 2, size=(1, 40))) for number in range(3)]
    pairs = compute_p_values(rows)
    alone = {
        frozenset(pair): compute_p_values([rows[int(name)] for name in pair])[frozenset(pair)]
        for pair in ("01", "02", "12")
    }
    assert set(pairs) == set(alone)
    least = min(alone, key=alone.get)
    assert pairs[least] == pytest.approx(min(1.0, 3 * alone[least]))
    assert all(pairs[pair] >= alone[pair] for pair in pairs)


def test_that_nothing_is_better_than_guessing_is_said(workbench, tmp_path):
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(9):
            Image.fromarray(generator.integers(0, 256, (9, 9), dtype=np.uint8)).save(tmp_path / name / f"{number}.png")
    comparison, request = ask(workbench, tmp_path, features=["random"], regimes=["R"], draws=3)
    assert "No row is shown to be better than guessing" in answer(workbench, comparison, request)


def test_what_is_better_than_guessing_is_not_doubted(workbench, folder):
    comparison, request = ask(workbench, folder, "accuracy", regimes=["R", "fixed"])
    assert "guessing" not in answer(workbench, comparison, request)
