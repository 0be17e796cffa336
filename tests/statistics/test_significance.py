import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from featbench.statistics.significance import corrected_resampled_test, holm

SCORES = st.lists(st.integers(-1000, 1000).map(lambda tenths: tenths / 10), min_size=2, max_size=30)

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


# The corrected resampled t-test.


def test_the_test_gives_what_is_worked_out_by_hand():
    # Mean 2, variance 2.5, n 5: t = 2 / sqrt((1/5 + 0.3) 2.5) = 1.78885; one-sided, 4 degrees of freedom.
    p = corrected_resampled_test([0, 1, 2, 3, 4], 0.3)
    assert p == pytest.approx(stats.t.sf(2 / math.sqrt(0.5 * 2.5), 4), rel=1e-12)
    # With 2 degrees of freedom the tail is 1/2 - t / (2 sqrt(2 + t²)); here t = 3 / sqrt((1/3 + 2/3) 1) = 3.
    assert corrected_resampled_test([2, 3, 4], 2 / 3) == pytest.approx(0.5 - 3 / (2 * math.sqrt(11)), rel=1e-12)
    # With 1 degree of freedom (Cauchy) it is 1/2 - atan(t) / π; here t = 1 / sqrt((1/2 + 1/2) 2).
    assert corrected_resampled_test([0, 2], 0.5) == pytest.approx(0.5 - math.atan(1 / math.sqrt(2)) / math.pi)


@settings(max_examples=100, deadline=None)
@given(SCORES, st.floats(0, 20))
def test_the_test_is_the_formula_of_nadeau_and_bengio(differences, ratio):
    assume(np.ptp(differences) > 0)
    n = len(differences)
    t = np.mean(differences) / math.sqrt((1 / n + ratio) * np.var(differences, ddof=1))
    expected = stats.t.sf(t, df=n - 1)
    assert corrected_resampled_test(differences, ratio) == pytest.approx(expected, rel=1e-6, abs=1e-14)


@settings(max_examples=50, deadline=None)
@given(SCORES)
def test_without_test_images_it_is_the_one_sided_t_test(differences):
    assume(np.ptp(differences) > 0)
    expected = stats.ttest_1samp(differences, 0, alternative="greater").pvalue
    assert corrected_resampled_test(differences, 0) == pytest.approx(expected, rel=1e-6, abs=1e-14)


@settings(max_examples=50, deadline=None)
@given(SCORES, st.floats(0, 20), st.floats(0.01, 20))
def test_more_test_images_for_each_training_image_make_the_test_more_careful(differences, ratio, more):
    assume(np.ptp(differences) > 0)
    near, far = corrected_resampled_test(differences, ratio), corrected_resampled_test(differences, ratio + more)
    if np.mean(differences) > 1e-9:
        assert near < far < 0.5 or near == far == 0
    elif np.mean(differences) < -1e-9:
        assert near > far > 0.5


@settings(max_examples=50, deadline=None)
@given(SCORES, st.floats(0, 20))
def test_the_two_sides_add_up(differences, ratio):
    assume(np.ptp(differences) > 0)
    other = corrected_resampled_test([-difference for difference in differences], ratio)
    assert corrected_resampled_test(differences, ratio) + other == pytest.approx(1)


@pytest.mark.parametrize(("value", "p"), [(2.5, 0.0), (0.0, 1.0), (-2.5, 1.0)])
@pytest.mark.parametrize("count", [2, 5])
def test_differences_that_are_all_alike_need_no_test(value, p, count):
    assert corrected_resampled_test([value] * count, 2.0) == p


@pytest.mark.parametrize("differences", [[], [1.0]])
def test_less_than_two_draws_are_refused(differences):
    with pytest.raises(ValueError, match="at least two draws"):
        corrected_resampled_test(differences, 2.0)


# Holm's correction.


def textbook_holm(p_values):
    """Holm 1979: the adjusted p of rank i (from 1) is the largest of min(1, (m - j + 1) p_j) over the ranks j ≤ i."""
    values = np.asarray(p_values, dtype=float)
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(values), 0, -1)
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * values[order]), 1)
    return adjusted


def test_holm_by_hand():
    # Sorted 0.005 (×4 = 0.02), 0.01 (×3 = 0.03), 0.03 (×2 = 0.06), 0.04 (×1 = 0.04, but not less than 0.06).
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.01, 0.5]) == pytest.approx([1.0, 0.03, 1.0])
    assert holm([0.02, 0.02]) == pytest.approx([0.04, 0.04])
    assert holm([]) == []


@given(st.floats(0, 1))
def test_a_single_p_value_is_not_adjusted(p):
    assert holm([p]) == [p]


@given(P_VALUES)
def test_holm_is_that_of_the_textbook(p_values):
    assert holm(p_values) == pytest.approx(textbook_holm(p_values))


@given(P_VALUES)
def test_adjusted_p_values_are_larger_but_no_more_than_one_and_in_the_same_order(p_values):
    adjusted = holm(p_values)
    assert len(adjusted) == len(p_values)
    for raw, found in zip(p_values, adjusted, strict=True):
        assert raw <= found <= 1
    for i in range(len(p_values)):
        for j in range(len(p_values)):
            if p_values[i] <= p_values[j]:
                assert adjusted[i] <= adjusted[j]


@given(P_VALUES, st.randoms(use_true_random=False))
def test_the_order_in_which_p_values_come_does_not_matter(p_values, random):
    order = list(range(len(p_values)))
    random.shuffle(order)
    adjusted = holm(p_values)
    assert holm([p_values[index] for index in order]) == [adjusted[index] for index in order]


@given(P_VALUES, st.floats(0.001, 0.2))
def test_what_is_rejected_is_what_stepping_down_rejects(p_values, level):
    ranked, rejected = sorted(p_values), 0
    while rejected < len(ranked) and ranked[rejected] * (len(ranked) - rejected) < level:
        rejected += 1
    assert sum(p < level for p in holm(p_values)) == rejected


def test_rounding_is_no_difference():
    scores = [100 * count / 24 for count in (0, 1, 10, 11)]
    difference = scores[0] - scores[1] - scores[2] + scores[3]
    assert difference > 0
    assert corrected_resampled_test([difference, difference], 2.0) == 1.0
