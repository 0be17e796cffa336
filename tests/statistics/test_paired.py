"""The paired test of two classifiers on the same images and draws."""

import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from featbench.statistics.paired import compute_paired_test


@pytest.mark.parametrize("wins, losses", [(1, 0), (5, 0), (3, 3), (8, 2), (0, 7), (13, 4), (40, 25)])
def test_one_draw_is_tested_as_mcnemar_did(wins, losses):
    differences = np.array([[1.0] * wins + [-1.0] * losses + [0.0] * 30])
    mean, p = compute_paired_test(differences)
    total, least = wins + losses, min(wins, losses)
    tail = sum(math.comb(total, k) for k in range(least + 1)) / 2**total
    assert mean == pytest.approx((wins - losses) / (total + 30))
    assert p == pytest.approx(min(1.0, 2 * tail))


@pytest.mark.parametrize("draws", [2, 3, 7])
def test_draws_that_agree_leave_the_t_test_over_images(draws):
    of_images = np.random.default_rng(0).integers(-1, 2, size=50).astype(float)
    mean, p = compute_paired_test(np.tile(of_images, (draws, 1)))
    assert mean == pytest.approx(of_images.mean())
    assert p == pytest.approx(ttest_1samp(of_images, 0).pvalue)


@pytest.mark.parametrize("images", [2, 30])
def test_images_that_agree_leave_the_t_test_over_draws(images):
    of_draws = np.random.default_rng(1).normal(0.2, 0.3, size=6)
    _, p = compute_paired_test(np.tile(of_draws[:, np.newaxis], (1, images)))
    assert p == pytest.approx(ttest_1samp(of_draws, 0).pvalue)


def test_the_other_way_round_the_mean_changes_its_sign_and_p_stays():
    differences = np.random.default_rng(2).integers(-1, 2, size=(5, 40)).astype(float)
    (mean, p), (other, same) = compute_paired_test(differences), compute_paired_test(-differences)
    assert (mean, p) == (-other, same)


def test_images_that_did_not_test_do_not_count():
    differences = np.random.default_rng(3).integers(-1, 2, size=(4, 25)).astype(float)
    wider = np.insert(differences, [0, 7, 25], np.nan, axis=1)
    assert compute_paired_test(wider) == pytest.approx(compute_paired_test(differences))


def test_images_that_tested_in_some_draws_count_for_these():
    differences = np.random.default_rng(4).integers(-1, 2, size=(4, 25)).astype(float)
    differences[np.random.default_rng(5).random((4, 25)) < 0.4] = np.nan
    mean, p = compute_paired_test(differences)
    assert mean == pytest.approx(np.nanmean(differences))
    assert 0 < p < 1


@pytest.mark.parametrize("draws", [1, 5])
def test_two_that_never_differ_cannot_be_told_apart(draws):
    assert compute_paired_test(np.zeros((draws, 30))) == (0.0, 1.0)


@pytest.mark.parametrize("draws", [1, 5])
def test_one_that_is_always_better_is_better(draws):
    mean, p = compute_paired_test(np.ones((draws, 30)))
    assert mean == 1.0
    assert p == pytest.approx(2 / 2**30)


def test_a_test_needs_two_images():
    with pytest.raises(ValueError, match="two test images"):
        compute_paired_test(np.array([[1.0, np.nan], [0.0, np.nan]]))


def simulate(generator, better, images=60, draws=5):
    """Two classifiers whose luck differs by image, by draw and by both; `better`: how much better the first is."""

    def run(advantage):
        of_image, of_draw = generator.normal(0, 1, images), generator.normal(0, 0.2, (draws, 1))
        return ease + advantage + of_image + of_draw + generator.logistic(0, 0.5, (draws, images)) > 0

    ease = generator.normal(1, 1.5, images)
    return run(better).astype(float) - run(0.0)


def test_equals_are_told_apart_in_fewer_than_six_of_a_hundred_and_unequals_nearly_always():
    generator = np.random.default_rng(6)
    found = [compute_paired_test(simulate(generator, 0.0))[1] < 0.05 for _ in range(1000)]
    assert np.mean(found) <= 0.06
    found = [compute_paired_test(simulate(generator, 3.0))[1] < 0.05 for _ in range(100)]
    assert np.mean(found) >= 0.95
