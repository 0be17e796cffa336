"""Features of training rows, checked and standardised, and the space that the rows span: where linear classifiers work.

Large products are the cost of it. They are made by `product`, on the device of what it is given.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featbench.errors import FeatureError, LearningError
from featbench.types import FloatArray, IntArray

Matrix = NDArray[np.float64]

RANK = 1e-12
"""Directions of the features with less than this part of the largest variance are rounding, and left out."""

COLUMNS = 2048
"""Features standardised at once, where there are more of them than rows."""

VALUES = 2**24
"""Values looked at together where features are checked."""


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return a @ b, [m, n] @ [n, k].

    On the CPU by numpy's BLAS: OpenBLAS took less than half the time of the MKL within torch on an AMD processor.
    """
    return torch.from_numpy(a.numpy() @ b.numpy()) if a.device.type == "cpu" else a @ b


def require_finite(features: FloatArray) -> None:
    """Raise a `FeatureError` that names the first row of features [n, d] with a value that is not finite."""
    step = max(1, VALUES // max(1, features.shape[1]))
    for start in range(0, len(features), step):
        finite = np.isfinite(features[start : start + step])
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            raise FeatureError(
                f"feature {column} of row {start + row} is {features[start + row, column]}: "
                "check the pixels of that image and the scale of the filters"
            )


def require_training(features: FloatArray, labels: IntArray, validation: NDArray[np.bool_], classes: int) -> None:
    """Refuse what a classifier cannot be trained on: features [t, d], labels [t] of range(classes), validation [t].

    Raises `FeatureError` for shapes that do not fit, no features, values that are not finite and labels that are no
    class; `LearningError` where all rows are held out for validation.
    """
    if features.ndim != 2 or 0 in features.shape:
        raise FeatureError(f"features of shape {features.shape}: one row for each image is needed, of at least a value")
    for name, one in (("labels", labels), ("validation marks", validation)):
        if np.shape(one) != (len(features),):
            raise FeatureError(f"{len(features)} rows of features, but {name} of shape {np.shape(one)}: one each")
    strange = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(strange):
        raise FeatureError(f"row {strange[0]} has label {labels[strange[0]]}: labels are from 0 to {classes - 1}")
    require_finite(features)
    if validation.all():
        raise LearningError(f"all {len(features)} rows are held out for validation: none is left to train on")


@dataclass(frozen=True)
class Standardiser:
    """Gives each feature zero mean and unit variance over the training rows, and rows a mean squared norm of 1."""

    mean: Matrix
    scale: Matrix

    @classmethod
    def fit(cls, features: FloatArray, *, whiten: bool = True) -> Standardiser:
        """Take the statistics of training features [t, d]; constant ones are given no weight.

        Without `whiten` features keep their own variances; centring and the rows' norm stay.
        """
        mean, deviation = np.empty(features.shape[1]), np.empty(features.shape[1])
        for here in column_blocks(features.shape[1]):
            block = features[:, here].astype(np.float64)
            mean[here], deviation[here] = block.mean(axis=0), block.std(axis=0)
        # What rounding leaves of a constant feature is small beside its mean, or beside the other features.
        varies = deviation > 1e-6 * np.maximum(np.abs(mean), np.sqrt((deviation**2).mean()))
        scale = np.zeros_like(deviation)
        if whiten:
            scale[varies] = 1 / (deviation[varies] * np.sqrt(max(int(varies.sum()), 1)))
        elif varies.any():
            scale[varies] = 1 / np.linalg.norm(deviation[varies])
        return cls(mean, scale)

    def apply(self, features: FloatArray, columns: slice | IntArray = slice(None)) -> Matrix:
        """Standardise features [n, d], or some columns of them."""
        x = features[:, columns].astype(np.float64)
        x -= self.mean[columns]
        x *= self.scale[columns]
        return x

    def scores(self, features: FloatArray, weight: Matrix, bias: Matrix) -> Matrix:
        """Return weight and bias applied to standardised features, which are never made."""
        folded = self.scale[:, None] * weight
        scores: Matrix = features.astype(np.float64) @ folded + (bias - self.mean @ folded)
        return scores


class TrainingRows:
    """Standardised training rows x [n, d], from which principal axes of all or some of them are taken.

    With more columns than rows x is never kept: it is made some columns at a time, its Gram matrix x xᵀ stands for it,
    and an axis is a combination of rows in place of columns. device: where the Gram matrix and axes are computed.
    """

    def __init__(self, features: FloatArray, standardise: Standardiser, device: str = "cpu") -> None:
        self._features, self._standardise, self._device = features, standardise, device
        self.wide = features.shape[1] > len(features)
        self.base = self._gram() if self.wide else standardise.apply(features)

    def axes(self, chosen: NDArray[np.bool_]) -> tuple[Matrix, Matrix]:
        """Return the axes [n or d, r] that span the chosen rows, and the mean square of those along each, [r]."""
        count = int(chosen.sum())
        rows = self.base if chosen.all() else self.base[chosen]
        if self.wide:
            squares = torch.from_numpy(rows[:, chosen]).to(self._device)
        else:
            across = torch.from_numpy(rows).to(self._device)
            squares = product(across.T, across)
        variance, axes = self._eigh(squares / count)
        kept = variance > RANK * max(variance[-1], 0.0)
        if not self.wide:
            return axes[:, kept], variance[kept]
        combinations = np.zeros((len(self.base), int(kept.sum())))
        combinations[chosen] = axes[:, kept] / np.sqrt(count * variance[kept])
        return combinations, variance[kept]

    def lift(self, combined: Matrix) -> Matrix:
        """Return weights [d, classes] on the standardised features for combinations [n or d, classes]."""
        if not self.wide:
            return combined
        blocks = column_blocks(self._features.shape[1])
        return np.vstack([self._standardise.apply(self._features, here).T @ combined for here in blocks])

    def _gram(self) -> Matrix:
        gram = torch.zeros((len(self._features),) * 2, dtype=torch.float64, device=self._device)
        for here in column_blocks(self._features.shape[1]):
            x = torch.from_numpy(self._standardise.apply(self._features, here)).to(self._device)
            gram += product(x, x.T)
        squares: Matrix = gram.cpu().numpy()
        return squares

    def _eigh(self, squares: Tensor) -> tuple[Matrix, Matrix]:
        if squares.device.type == "cpu":
            variance, axes = np.linalg.eigh(squares.numpy())
            return variance, axes
        values, vectors = torch.linalg.eigh(squares)
        return values.cpu().numpy(), vectors.cpu().numpy()


def column_blocks(columns: int) -> list[slice]:
    """Return slices of range(columns), of `COLUMNS` each but for the last."""
    return [slice(start, start + COLUMNS) for start in range(0, columns, COLUMNS)]


def standardised(features: FloatArray, standardise: Standardiser) -> NDArray[np.float32]:
    """Return features [n, d] standardised in single precision, with no copy of them all in double."""
    rows = np.empty(features.shape, dtype=np.float32)
    for here in column_blocks(features.shape[1]):
        rows[:, here] = standardise.apply(features, here)
    return rows
