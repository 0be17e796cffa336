"""Features of training rows: checked, standardised, and turned into the space that the rows span.

A linear classifier with an L2 penalty has its weights in that space, which is smaller than that of the features where
there are more features than rows. Large products are what this costs. `multiply` computes them, on the device of its
arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController
from torch import Tensor

from featbench.errors import FeatureError, LearningError
from featbench.types import FloatArray, IntArray, State

Matrix = NDArray[np.float64]

RANK_TOLERANCE = 1e-12
"""Directions with less than this part of the largest variance are rounding errors, and are left out."""

COLUMNS = 2048
"""Features that are standardised at once: a float64 copy of all would take four times the memory of float16."""

ROWS = 64
"""Rows of new images that are multiplied at once, always so many: fewer are filled up with zeros."""

VALUES = 2**24
"""Values of the features that are checked at once."""


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """Return the matrix product a @ b, [m, n] @ [n, k].

    On the CPU by numpy's BLAS: OpenBLAS took less than half the time of the MKL within torch on an AMD processor.
    """
    return torch.from_numpy(a.numpy() @ b.numpy()) if a.device.type == "cpu" else a @ b


def multiply_rows(a: FloatArray, b: FloatArray) -> Matrix:
    """Return a @ b, [m, k] @ [k, n], in double precision, each row the same bits whatever the other rows.

    BLAS takes other instructions for few rows than for many, and divides long sums among its threads. Scores of an
    image would depend, in their last digits, on the images that are scored with it and on the machine's cores.
    """
    product = np.empty((len(a), b.shape[1]))
    with _find_blas().limit(limits=1):
        for start in range(0, len(a), ROWS):
            some = a[start : start + ROWS]
            rows = np.zeros((ROWS, a.shape[1]))
            rows[: len(some)] = some
            product[start : start + ROWS] = (rows @ b)[: len(some)]
    return product


@cache
def _find_blas() -> Any:
    """Return what sets the number of threads of BLAS; finding the libraries takes milliseconds."""
    return ThreadpoolController().select(user_api="blas")


def find_nonfinite(values: FloatArray) -> tuple[int, int] | None:
    """Return row and column of the first of the values [n, d] that is not finite, or None if all are finite."""
    # In blocks: a mask of all values at once would take half the memory of float16 features.
    step = max(1, VALUES // max(1, values.shape[1]))
    for start in range(0, len(values), step):
        finite = np.isfinite(values[start : start + step])
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            return start + int(row), int(column)
    return None


def require_finite(features: FloatArray) -> None:
    """Raise a `FeatureError` that names the first row of features [n, d] with a value that is not finite."""
    if (found := find_nonfinite(features)) is not None:
        row, column = found
        raise FeatureError(
            f"feature {column} of row {row} is {features[row, column]}: "
            "check the pixels of that image and the scale of the filters"
        )


def require_training(features: FloatArray, labels: IntArray, validation: NDArray[np.bool_], classes: int) -> None:
    """Check what a classifier is trained on: features [t, d], labels [t] in range(classes), validation marks [t].

    Raises `FeatureError` for shapes that do not match, empty features, values that are not finite and labels outside
    the range; `LearningError` where all rows are held out for validation.
    """
    if features.ndim != 2 or 0 in features.shape:
        raise FeatureError(f"features of shape {features.shape}: one row for each image is needed, of at least a value")
    for name, one in (("labels", labels), ("validation marks", validation)):
        if np.shape(one) != (len(features),):
            raise FeatureError(f"{len(features)} rows of features, but {name} of shape {np.shape(one)}: one each")
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(outside):
        raise FeatureError(f"row {outside[0]} has label {labels[outside[0]]}: labels are from 0 to {classes - 1}")
    require_finite(features)
    if validation.all():
        raise LearningError(f"all {len(features)} rows are held out for validation: none is left to train on")


@dataclass(frozen=True)
class Standardiser:
    """Centres each feature over the training rows and scales it: z_j = s_j (x_j - μ_j).

    Features get equal variances, and rows a mean squared norm of 1, so that one strength of a penalty means the same
    for any number of features. mean: μ [d]. scale: s [d], 0 for constant features.
    """

    mean: Matrix
    scale: Matrix

    @classmethod
    def fit(cls, features: FloatArray, *, unit_variance: bool = True) -> Standardiser:
        """Estimate the statistics of training features [t, d]; constant features get the scale 0.

        unit_variance: whether all features get equal variances. Otherwise they keep their own, up to one common factor
        that gives rows a mean squared norm of 1.
        """
        mean, deviation = np.empty(features.shape[1]), np.empty(features.shape[1])
        for columns in split_columns(features.shape[1]):
            block = features[:, columns].astype(np.float64)
            mean[columns], deviation[columns] = block.mean(axis=0), block.std(axis=0)
        # The computed deviation of a constant feature need not be 0. What rounding leaves is small relative to the
        # feature's mean, or to the other features: scaled to unit variance it would be noise as loud as a signal.
        varies = deviation > 1e-6 * np.maximum(np.abs(mean), np.sqrt((deviation**2).mean()))
        scale = np.zeros_like(deviation)
        # The mean of ‖z‖² over the rows is Σ_j s_j² σ_j², which is 1 for s_j = 1 / (σ_j √d) as for s_j = 1 / ‖σ‖.
        if unit_variance:
            scale[varies] = 1 / (deviation[varies] * np.sqrt(max(int(varies.sum()), 1)))
        elif varies.any():
            scale[varies] = 1 / np.linalg.norm(deviation[varies])
        return cls(mean, scale)

    def apply(self, features: FloatArray, columns: slice | IntArray = slice(None)) -> Matrix:
        """Standardise features [n, d], or some columns of them, in float64."""
        x = features[:, columns].astype(np.float64)
        # In place: x is a copy already, and these blocks are large.
        x -= self.mean[columns]
        x *= self.scale[columns]
        return x

    def compute_scores(self, features: FloatArray, weight: Matrix, bias: Matrix) -> Matrix:
        """Return the scores z w + b, [n, classes], of the standardised rows z of features [n, d]."""
        # z w + b = x (s ∘ w) + (b - μ (s ∘ w)): scaling the weights, which are few, leaves the features as they are.
        folded = self.scale[:, None] * weight
        return multiply_rows(features, folded) + (bias - self.mean @ folded)

    def state(self) -> State:
        """Return the statistics as named arrays."""
        return {"mean": self.mean, "scale": self.scale}

    @classmethod
    def restore(cls, state: State) -> Standardiser:
        """Rebuild a standardiser from its state."""
        return cls(state["mean"], state["scale"])


class TrainingRows:
    """Standardised training rows x [n, d], and the principal axes of all or some of them.

    With more columns than rows (`wide`) x is never stored. Its Gram matrix x xᵀ [n, n], made of some columns at a time,
    takes its place, and an axis is a combination of rows in place of columns. `base` is x, or the Gram matrix: in both
    cases `base @ axes` are the coordinates of all rows. device: where the Gram matrix and the axes are computed.
    """

    def __init__(self, features: FloatArray, standardiser: Standardiser, device: str = "cpu") -> None:
        self._features, self._standardiser, self._device = features, standardiser, device
        self.wide = features.shape[1] > len(features)
        self.base = self._compute_gram() if self.wide else standardiser.apply(features)

    def find_principal_axes(self, chosen: NDArray[np.bool_]) -> tuple[Matrix, Matrix]:
        """Return the axes [n or d, r] that span the chosen rows, and the mean square of these along each, [r]."""
        # xᵀx / n = A V Aᵀ gives the axes A themselves. Where x is wide, x xᵀ / n = U V Uᵀ has the same eigenvalues V
        # other than 0, and is smaller; ‖xᵀu‖² = uᵀ x xᵀ u = n v, so that the axes are A = xᵀ U (n V)^-½.
        count = int(chosen.sum())
        rows = self.base if chosen.all() else self.base[chosen]
        if self.wide:
            squares = torch.from_numpy(rows[:, chosen]).to(self._device)
        else:
            x = torch.from_numpy(rows).to(self._device)
            squares = multiply(x.T, x)
        variance, axes = self._decompose(squares / count)
        # Centred rows span at most n - 1 dimensions: (n v)^-½ would blow up the rounding errors along the last.
        kept = variance > RANK_TOLERANCE * max(variance[-1], 0.0)
        if not self.wide:
            return axes[:, kept], variance[kept]
        combinations = np.zeros((len(self.base), int(kept.sum())))
        combinations[chosen] = axes[:, kept] / np.sqrt(count * variance[kept])
        return combinations, variance[kept]

    def lift(self, combined: Matrix) -> Matrix:
        """Return weights [d, classes] on the standardised features for combinations [n or d, classes]."""
        if not self.wide:
            return combined
        blocks = split_columns(self._features.shape[1])
        return np.vstack([self._standardiser.apply(self._features, columns).T @ combined for columns in blocks])

    def _compute_gram(self) -> Matrix:
        gram = torch.zeros((len(self._features),) * 2, dtype=torch.float64, device=self._device)
        for columns in split_columns(self._features.shape[1]):
            x = torch.from_numpy(self._standardiser.apply(self._features, columns)).to(self._device)
            gram += multiply(x, x.T)
        squares: Matrix = gram.cpu().numpy()
        return squares

    def _decompose(self, squares: Tensor) -> tuple[Matrix, Matrix]:
        """Return eigenvalues, ascending, and eigenvectors; numpy computes them on a CPU, as it does the products."""
        if squares.device.type == "cpu":
            variance, axes = np.linalg.eigh(squares.numpy())
            return variance, axes
        values, vectors = torch.linalg.eigh(squares)
        return values.cpu().numpy(), vectors.cpu().numpy()


def split_columns(columns: int) -> list[slice]:
    """Split range(columns) into slices of `COLUMNS` each; the last may be shorter."""
    return [slice(start, start + COLUMNS) for start in range(0, columns, COLUMNS)]


def standardise_rows(features: FloatArray, standardiser: Standardiser) -> NDArray[np.float32]:
    """Return features [n, d] standardised in float32, without a float64 copy of them all."""
    rows = np.empty(features.shape, dtype=np.float32)
    for columns in split_columns(features.shape[1]):
        rows[:, columns] = standardiser.apply(features, columns)
    return rows
