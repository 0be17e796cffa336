"""The cosine schedule against values of the cosine that are known in closed form."""

import math

import numpy as np
import pytest

from featbench.learning.schedules import cosine_decay
from featbench.refinement.settings import Refinement

# cos of 0, π/6, π/4, π/3, π/2, 2π/3, 3π/4, 5π/6, π.
COSINES = [1, 3**0.5 / 2, 2**-0.5, 0.5, 0, -0.5, -(2**-0.5), -(3**0.5) / 2, -1]
TWELFTHS = [0, 2, 3, 4, 6, 8, 9, 10, 12]


@pytest.mark.parametrize(("step", "cosine"), [*zip(TWELFTHS, COSINES, strict=True)])
def test_the_factor_is_half_of_one_more_than_the_cosine(step, cosine):
    assert cosine_decay(step, 12) == pytest.approx((1 + cosine) / 2, abs=1e-15)
    assert cosine_decay(step / 12) == pytest.approx((1 + cosine) / 2, abs=1e-15)


def test_it_is_one_at_first_and_never_rises():
    factors = [cosine_decay(step, 1000) for step in range(1001)]
    assert factors[0] == 1.0 and factors[-1] == 0.0
    assert (np.diff(factors) < 0).all()


@pytest.mark.parametrize("steps", [1, 2, 7, 500])
def test_the_factors_sum_to_half_of_the_steps_and_a_half(steps):
    # Σ_{k<n} ½ (1 + cos(π k/n)) = n/2 + ½: by symmetry the cosines cancel in pairs, but for that of 0.
    assert math.fsum(cosine_decay(step, steps) for step in range(steps)) == pytest.approx(steps / 2 + 0.5)


def test_refinement_follows_it_by_epochs():
    factors = [Refinement(epochs=4, schedule="cosine").compute_rate_factor(epoch) for epoch in range(1, 5)]
    np.testing.assert_allclose(factors, [1, (1 + 2**-0.5) / 2, 0.5, (1 - 2**-0.5) / 2], rtol=1e-12)
