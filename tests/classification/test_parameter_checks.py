import numpy as np
import pytest

from featbench.classification.parameter_checks import require_one_of, require_positive


@pytest.mark.parametrize("value", [1e-300, 1, 5.5, np.float32(2)])
def test_positive_numbers_are_accepted(value):
    require_positive("C", value)


@pytest.mark.parametrize("value", [0, -1.5, np.nan, np.inf, -np.inf])
def test_other_numbers_are_refused(value):
    with pytest.raises(ValueError, match=f"gamma must be finite and greater than 0, not {value}$"):
        require_positive("gamma", value)


def test_a_word_must_be_one_of_those_known():
    for known in (("l1", "l2"), {"l1": 1, "l2": 2}, iter(["l1", "l2"])):
        require_one_of("penalty", "l2", known)
    with pytest.raises(ValueError, match=r"penalty must be one of l1, l2, not 'l3'$"):
        require_one_of("penalty", "l3", iter(["l1", "l2"]))
