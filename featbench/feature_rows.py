"""Rows of features as classifiers without a linear shortcut take them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featbench.row_space import Standardiser, column_blocks
from featbench.types import FloatArray


def standardised(features: FloatArray, standardise: Standardiser) -> NDArray[np.float32]:
    """Return features [n, d] standardised in single precision, with no copy of them all in double."""
    rows = np.empty(features.shape, dtype=np.float32)
    for here in column_blocks(features.shape[1]):
        rows[:, here] = standardise.apply(features, here)
    return rows
