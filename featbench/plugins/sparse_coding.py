"""Sparse coding: the optimal codes themselves as features, to compare with predicted ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featbench.evaluation.regimes import Family
from featbench.hookspecs import hookimpl
from featbench.learning.learner import FeatureLearner, FilterLearner
from featbench.learning.patch_matrix import PatchMatrix
from featbench.learning.patches import PatchSource
from featbench.sparse import feature_sign, fista, learn_dictionary
from featbench.stages.encoders import FilterBank
from featbench.stages.filters import Bank, Filters

SOLVERS = {"fista": fista, "feature-sign": feature_sign}


@dataclass(frozen=True)
class SparseCoding(FilterLearner):
    """Sparse coding: features are the codes z that minimise ½‖y - D z‖² + λ‖z‖₁ at every position (slow).

    The dictionary D of unit-norm atoms is learned online (Olshausen, Field 1996; Mairal et al. 2009). Each group of a
    connection table has a dictionary and a problem of its own.

    lam: λ, for patches scaled to unit variance a pixel. solver: `feature-sign` (exact) or `fista`. tolerance: duality
    gap at which a code is done, as part of its energy. patches: drawn once. updates, batch: of the dictionary. centre:
    the mean of each patch over all its maps is taken out.
    """

    name: ClassVar[str] = "sparse-coding"
    family: ClassVar[Family] = "unsupervised"
    source: ClassVar[str] = "Olshausen, Field 1996; Lee et al. 2006"
    differentiable: ClassVar[bool] = False

    lam: float = 1.0
    solver: str = "fista"
    tolerance: float = 1e-3
    patches: int = 20_000
    updates: int = 500
    batch: int = 256
    centre: bool = True

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            raise ValueError(f"solver is one of {', '.join(SOLVERS)}, not {self.solver!r}")
        if not (self.lam > 0 and self.tolerance > 0):
            raise ValueError("lam > 0 and tolerance > 0 are needed")
        if min(self.patches, self.updates, self.batch) < 1:
            raise ValueError("patches, updates and batch must be at least 1")

    def filters(self, bank: Bank, patches: PatchSource | None, seed: int) -> Filters:
        """Learn the dictionary; the filters are its atoms, which give Dᵀy; it is the extra `decoder` too."""
        matrix = PatchMatrix.sample(self.name, bank, patches, self.patches, centre=self.centre)
        atoms = learn_dictionary(matrix.rows, bank.filters, self.lam, updates=self.updates, batch=self.batch, seed=seed)
        rows = atoms.atoms.T
        return Filters(matrix.fold(rows).view(bank.shape), extras={"decoder": rows.reshape(bank.shape)})

    def encoder(self, filters: Filters, table: NDArray[np.int64]) -> nn.Module:
        """Build the filter bank that gives Dᵀy, and the solver."""
        return nn.Sequential(FilterBank(filters, table), OptimalCodes(self, filters.extras["decoder"], len(table)))


class OptimalCodes(nn.Module):
    """Takes correlations Dᵀy at every position to the codes: the minimum depends on y through Dᵀy alone."""

    roots: Tensor
    inverses: Tensor

    def __init__(self, learner: SparseCoding, decoder: Tensor, groups: int) -> None:
        super().__init__()
        self.learner = learner
        # In double: the inverse of the root would magnify the rounding errors of DᵀD where atoms are alike.
        atoms = decoder.flatten(1).view(groups, decoder.shape[0] // groups, -1).double()
        roots, inverses = zip(*(_compute_square_root(rows @ rows.T) for rows in atoms), strict=True)
        self.register_buffer("roots", torch.stack(roots))
        self.register_buffer("inverses", torch.stack(inverses))

    def forward(self, x: Tensor) -> Tensor:
        """Return codes [n, units, h, w] for correlations x of the same shape."""
        groups, units = self.roots.shape[:2]
        last = x.movedim(1, -1)
        rows = last.reshape(-1, groups, units)
        solve = SOLVERS[self.learner.solver]
        # The solvers take patches and a dictionary. With the dictionary R, RR = DᵀD, and the patch R⁻¹Dᵀy they see the
        # same Gram matrix and the same correlations, in m dimensions instead of d: the codes are the same.
        codes = [
            solve(
                (rows[:, group].double() @ self.inverses[group]).to(x.dtype),
                self.roots[group].to(x.dtype),
                self.learner.lam,
                tolerance=self.learner.tolerance,
            ).codes
            for group in range(groups)
        ]
        return torch.stack(codes, dim=1).reshape(last.shape).movedim(-1, 1)


def _compute_square_root(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Return the symmetric square root of a Gram matrix [m, m], and its pseudo-inverse."""
    values, vectors = torch.linalg.eigh(gram)
    # Rounding may leave eigenvalues of a singular matrix below 0; directions of tiny ones are left out of the inverse.
    roots = values.clamp_min(0).sqrt()
    inverse = torch.where(roots > 1e-6 * roots[-1], 1 / roots.clamp_min(1e-30), torch.zeros_like(roots))
    return (vectors * roots) @ vectors.T, (vectors * inverse) @ vectors.T


@hookimpl
def featbench_learners() -> list[type[FeatureLearner]]:
    """Register sparse coding."""
    return [SparseCoding]
