"""What a user hands to a solver, checked: every mistake is reported before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featbench.errors import LearningError, UsageError
from featbench.sparse.memory import choose_block_rows, require_coding_memory
from featbench.sparse.problem import Lasso

Array = Tensor | NDArray[np.floating]
"""A torch tensor or a numpy array, of float32 or float64."""


@dataclass(frozen=True)
class Inputs:
    """Checked input: patches [n, d] as given, the problem in float64, codes to start from [n, m], the codes' dtype."""

    patches: Tensor
    lasso: Lasso
    start: Tensor | None
    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, int]:
        """Patches and atoms: the shape of the codes."""
        return len(self.patches), self.lasso.dictionary.shape[1]

    def blocks(self) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Yield row numbers, patches and starting codes of one block after the other, in float64."""
        device = self.patches.device
        size = choose_block_rows(self.shape[1], device)
        for first in range(0, len(self.patches), size):
            block = slice(first, first + size)
            # Converted block by block: a copy of all patches in float64 is never held.
            patches = self.patches[block].double()
            # A coefficient of a zero atom changes nothing but the penalty: it starts, and so remains, at zero.
            start = None if self.start is None else self.start[block].double() * (self.lasso.squared_norms > 0)
            yield torch.arange(first, first + len(patches), device=device), patches, start


def read_inputs(patches: Array, dictionary: Array, lam: float, start: Array | None, nonnegative: bool) -> Inputs:
    """Check and convert what a solver was given.

    Raises UsageError for shapes, types and λ that cannot be meant, or too little memory; LearningError for values that
    are not finite.
    """
    y, atoms = as_tensor(patches, "patches"), as_tensor(dictionary, "dictionary")
    if y.device != atoms.device:
        raise UsageError(f"the patches are on {y.device} and the dictionary is on {atoms.device}: use one device")
    y, atoms = read_matrix(y, "patches", "patch"), read_matrix(atoms, "dictionary", "atom")
    if y.shape[1] != atoms.shape[0]:
        raise UsageError(
            f"the patches are {_describe_shape(y)} and the dictionary {_describe_shape(atoms)}: "
            "[n, d] and [d, m] with one d are needed"
        )
    check_lam(lam)
    dtype = torch.promote_types(y.dtype, atoms.dtype)
    require_coding_memory(len(y), atoms.shape[1], len(atoms), dtype.itemsize, y.device)
    lasso = Lasso(atoms.double(), float(lam), nonnegative)
    return Inputs(y, lasso, None if start is None else _read_start(start, y, atoms, nonnegative), dtype)


def read_matrix(values: Array, name: str, row: str) -> Tensor:
    """Return a finite matrix of float32 or float64; `row`: "patch" (a row) or "atom" (a column), for error messages."""
    matrix = as_tensor(values, name)
    if matrix.ndim != 2:
        raise UsageError(f"{name} must be a matrix, and this has the shape {_describe_shape(matrix)}")
    if matrix.shape[0] == 0 or matrix.shape[1] == 0:
        raise UsageError(f"{name} of the shape {_describe_shape(matrix)}: there is nothing in it")
    # The sum of squares is finite only where each value is, and is not too large to be squared.
    energy = torch.linalg.vector_norm(matrix, dim=0 if row == "atom" else 1, dtype=torch.float64).square()
    bad = (~torch.isfinite(energy)).nonzero().flatten().tolist()
    if bad:
        raise LearningError(
            f"{name}: {row} {bad[0]} is not finite, or too large to be squared ({len(bad)} of them are)"
        )
    return matrix


def as_tensor(values: Array, name: str) -> Tensor:
    """Return values as a tensor, without a copy where none is needed."""
    if isinstance(values, np.ndarray):
        # What `from_numpy` refuses or warns of is copied: read-only memory, negative strides, foreign byte orders.
        if not (values.flags.writeable and values.flags.c_contiguous and values.dtype.isnative):
            values = np.array(values, dtype=values.dtype.newbyteorder("="), order="C")
        if values.dtype.kind not in "fiub":
            raise UsageError(f"{name} must hold numbers, and this is an array of {values.dtype}")
        values = torch.from_numpy(values)
    if not isinstance(values, Tensor):
        raise UsageError(f"{name} must be a torch tensor or a numpy array, and this is a {type(values).__name__}")
    if values.dtype not in (torch.float32, torch.float64):
        raise UsageError(f"{name} must be float32 or float64, and this is {str(values.dtype).removeprefix('torch.')}")
    return values.detach()


def check_lam(lam: float) -> None:
    """Raise UsageError unless λ is a positive number."""
    if isinstance(lam, bool) or not math.isfinite(lam) or lam <= 0:
        raise UsageError(f"λ must be a finite number above 0, and this is {lam}")


def _read_start(start: Array, patches: Tensor, dictionary: Tensor, nonnegative: bool) -> Tensor:
    codes, wanted = as_tensor(start, "start"), (len(patches), dictionary.shape[1])
    if codes.shape != wanted:
        raise UsageError(f"start has the shape {_describe_shape(codes)}, and codes have [{wanted[0]}, {wanted[1]}]")
    if codes.device != patches.device:
        raise UsageError(f"start is on {codes.device} and the patches are on {patches.device}: use one device")
    if not bool(torch.isfinite(codes).all()):
        raise LearningError("start is not finite")
    if nonnegative and bool((codes < 0).any()):
        raise UsageError("start holds negative codes, and nonnegative ones are asked for")
    return codes


def _describe_shape(values: Tensor) -> str:
    return str(list(values.shape))
