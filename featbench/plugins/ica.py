"""Independent component analysis of patches, by reconstruction (RICA) or by FastICA."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from featbench.errors import LearningError
from featbench.evaluation.regimes import Family
from featbench.hookspecs import hookimpl
from featbench.learning.learner import FeatureLearner, FilterLearner
from featbench.learning.patch_matrix import PatchMatrix, PrincipalComponents
from featbench.learning.patches import PatchSource
from featbench.stages.filters import Bank, Filters
from featbench.system.updates import Updates

METHODS = ("rica", "fastica")

SMOOTHING = 1e-2
"""ε of the smooth absolute value √(u² + ε), for u of about unit variance."""

log = logging.getLogger("featbench")


@dataclass(frozen=True)
class Ica(FilterLearner):
    """Independent components of whitened patches x: directions w along which wᵀx is as sparse as can be.

    method: `rica` minimises the mean over patches of λ Σ √((W x)² + ε) + ½ ‖WᵀW x - x‖², over W with rows of unit norm,
    by L-BFGS (Le, Karpenko, Ngiam, Ng 2011), which allows more filters than dimensions; `fastica` finds orthogonal w of
    largest negentropy, by log cosh (Hyvärinen 1999), and warns if that did not converge. Patches are whitened in as
    many of their leading principal components as there are filters, at most all that have variance; the filters see
    patches as they come. What `F` stands for is tanh(wᵀx).

    lam: λ of `rica`. iterations: at most so many, of L-BFGS or of FastICA. patches: drawn once. centre: the mean of
    each patch over all its maps is taken out.
    """

    name: ClassVar[str] = "ica"
    family: ClassVar[Family] = "unsupervised"
    source: ClassVar[str] = "Le, Karpenko, Ngiam, Ng 2011; Hyvärinen 1999"

    method: str = "rica"
    lam: float = 0.01
    patches: int = 20_000
    iterations: int = 200
    centre: bool = True

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method is one of {', '.join(METHODS)}, not {self.method!r}")
        if self.lam <= 0:
            raise ValueError(f"lam must be positive, not {self.lam}")
        if self.patches < 2 or self.iterations < 1:
            raise ValueError("patches must be at least 2 and iterations at least 1")

    def refusal(self, bank: Bank) -> str | None:
        """FastICA has no more components than dimensions."""
        values = bank.fan_in * bank.size**2
        dimensions = values - 1 if self.centre and values > 1 else values
        if self.method == "rica" or bank.filters <= dimensions:
            return None
        return (
            f"{bank.filters} filters are asked for, but FastICA finds at most {dimensions} components in patches of "
            f"{bank.fan_in}×{bank.size}×{bank.size} values: take fewer or larger filters, or method=rica"
        )

    def filters(self, bank: Bank, patches: PatchSource | None, seed: int) -> Filters:
        """Learn the filters; the patches that they stand for are the extra `decoder`, [filters, fan_in, size, size]."""
        matrix = PatchMatrix.sample("ICA", bank, patches, self.patches, centre=self.centre)
        components = PrincipalComponents.of(matrix.rows, bank.filters)
        whitener = components.compute_whitener()
        white = (matrix.rows - components.mean) @ whitener.T
        if self.method == "rica":
            unmixing = minimise_rica_cost(white, bank.filters, self.lam, self.iterations, seed)
        else:
            unmixing = _run_fastica(white, bank.filters, self.iterations, seed)
        if not bool(torch.isfinite(unmixing).all()):
            raise LearningError("ICA diverged: its filters are not finite; a smaller lam may help")
        # Filters see patches as they come: W (V (x - mean)) = (W V) x - (W V) mean, with the whitener V.
        weight = unmixing @ whitener
        decoder = (unmixing @ components.compute_unwhitener()).view(bank.shape)
        bias = -weight @ components.mean
        return Filters(matrix.fold(weight).view(bank.shape), bias=bias, extras={"decoder": decoder})


def minimise_rica_cost(white: Tensor, filters: int, lam: float, iterations: int, seed: int) -> Tensor:
    """Return W [filters, r] of unit rows that minimises `rica_cost` on white rows [n, r], from a random start."""
    start = torch.randn(filters, white.shape[1], generator=torch.Generator().manual_seed(seed), dtype=white.dtype)
    unmixing = start.to(white.device).requires_grad_()
    # By default it evaluates the cost a quarter more often than it moves.
    updates = Updates(iterations * 5 // 4)
    optimizer = torch.optim.LBFGS([unmixing], max_iter=iterations, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        # The norm is inside the cost: L-BFGS moves rows of any length, and its gradient is along the sphere.
        optimizer.zero_grad()
        cost = rica_cost(normalise_rows(unmixing), white, lam)
        cost.backward()  # type: ignore[no-untyped-call]
        updates.energy = cost.detach()
        updates.advance()
        return cost

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return normalise_rows(unmixing.detach())


def normalise_rows(unmixing: Tensor) -> Tensor:
    """Divide each row by its norm: without that, rows beyond the number of dimensions would shrink to zero."""
    normalised: Tensor = unmixing / unmixing.norm(dim=1, keepdim=True)
    return normalised


def rica_cost(unmixing: Tensor, white: Tensor, lam: float) -> Tensor:
    """Return the mean over rows x of λ Σ √((W x)² + ε) + ½ ‖WᵀW x - x‖², for W [filters, r] and rows [n, r]."""
    codes = white @ unmixing.T
    error = codes @ unmixing - white
    cost: Tensor = lam * (codes.square() + SMOOTHING).sqrt().sum() + 0.5 * error.square().sum()
    return cost / len(white)


def _run_fastica(white: Tensor, filters: int, iterations: int, seed: int) -> Tensor:
    """Return the unmixing matrix [filters, r] of white rows [n, r] that scikit-learn's FastICA finds."""
    if white.shape[1] < filters:
        raise LearningError(
            f"the patches vary in {white.shape[1]} dimensions only, but FastICA is asked for {filters} components: "
            "take fewer filters, or method=rica"
        )
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    solver = FastICA(whiten=False, fun="logcosh", max_iter=iterations, random_state=seed % 2**32)
    # The warning becomes a line of the log, which says what a user of featbench can do about it.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        solver.fit(white.double().cpu().numpy())
    if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
        log.warning("FastICA did not converge in %d iterations: ica(iterations=…) allows more", iterations)
    return torch.from_numpy(solver.components_).to(white)


@hookimpl
def featbench_learners() -> list[type[FeatureLearner]]:
    """Register ICA."""
    return [Ica]
