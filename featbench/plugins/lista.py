"""LISTA and LCoD: a few trained steps of sparse coding as the encoder."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from featbench.evaluation.regimes import Family
from featbench.hookspecs import hookimpl
from featbench.learning.learner import FeatureLearner, FilterLearner
from featbench.learning.patch_matrix import PatchMatrix
from featbench.learning.patches import PatchSource
from featbench.learning.unrolled import (
    InitialWeights,
    Lcod,
    Lista,
    LowRank,
    Unrolled,
    draw_random_weights,
    factorise_to_rank,
    keep_largest,
    make_descent_weights,
    make_ista_weights,
    train_unrolled,
)
from featbench.sparse import feature_sign, learn_dictionary
from featbench.stages.encoders import FilterBank
from featbench.stages.filters import Bank, Filters


@dataclass(frozen=True)
class UnrolledLearner(FilterLearner):
    """What LISTA and LCoD share: a dictionary, optimal codes of patches, and a network trained to give them."""

    family: ClassVar[Family] = "unsupervised"
    source: ClassVar[str] = "Gregor, LeCun 2010"

    lam: float = 0.5
    steps: int = 3
    start: str = "solver"
    keep: float = 1.0
    rank: int = 0
    patches: int = 20_000
    dictionary_updates: int = 300
    updates: int = 6000
    batch: int = 256
    rate: float = 0.003
    centre: bool = True

    def __post_init__(self) -> None:
        if self.start not in ("solver", "random"):
            raise ValueError(f"start is solver or random, not {self.start!r}")
        if not (self.lam > 0 and self.rate > 0 and 0 < self.keep <= 1):
            raise ValueError("lam > 0, rate > 0 and 0 < keep ≤ 1 are needed")
        if self.steps < 0 or self.rank < 0:
            raise ValueError("steps and rank must not be negative")
        if self.rank and self.keep < 1:
            raise ValueError("keep and rank are two ways to reduce S: give one of them")
        if min(self.patches, self.dictionary_updates, self.updates, self.batch) < 1:
            raise ValueError("patches, dictionary_updates, updates and batch must be at least 1")

    def refusal(self, bank: Bank) -> str | None:
        """Refuse a rank that S cannot have."""
        return (
            f"rank {self.rank} is more than S [{bank.filters}, {bank.filters}] has"
            if self.rank > bank.filters
            else None
        )

    def filters(self, bank: Bank, patches: PatchSource | None, seed: int) -> Filters:
        """Learn the filters W_e; S, θ and the dictionary are the extras `mixing`, `threshold` and `decoder`."""
        matrix = PatchMatrix.sample(self.name, bank, patches, self.patches, centre=self.centre)
        atoms = learn_dictionary(
            matrix.rows, bank.filters, self.lam, updates=self.dictionary_updates, batch=self.batch, seed=seed
        ).atoms
        # Optimal codes are the targets of the training; its own error is far larger than this tolerance.
        codes = feature_sign(matrix.rows, atoms, self.lam, tolerance=1e-4).codes
        encoder, unrolled = self.build_network(atoms, seed)
        train_unrolled(encoder, unrolled, matrix.rows, codes, self.updates, self.batch, self.rate, seed)
        extras = {
            "decoder": atoms.T.reshape(bank.shape),
            "mixing": unrolled.mixing.detach()[0],
            "threshold": unrolled.threshold.detach(),
        }
        return Filters(matrix.fold(encoder.weight.detach()).view(bank.shape), extras=extras)

    def build_network(self, atoms: Tensor, seed: int) -> tuple[nn.Linear, Unrolled]:
        """Return the untrained network for atoms [d, m]: W_e on patches in rows, and the steps on W_e x."""
        start = (
            self.make_initial_weights(atoms) if self.start == "solver" else draw_random_weights(atoms, self.lam, seed)
        )
        # By |I - DᵀD|, as in the paper, even where S starts at random: it says which atoms compete.
        mixing = keep_largest(start.mixing, make_descent_weights(atoms, self.lam).mixing, self.keep)
        unrolled = self.unroll(mixing.unsqueeze(0), start.threshold)
        if self.rank:
            low_rank = LowRank(*factorise_to_rank(mixing, self.rank))
            # Training then moves U and V in place of S, so that S keeps its rank.
            parametrize.register_parametrization(unrolled, "free", low_rank)
        inputs, units = atoms.shape
        encoder = nn.Linear(inputs, units, bias=False, device=atoms.device, dtype=atoms.dtype)
        with torch.no_grad():
            encoder.weight.copy_(start.encoder)
        return encoder, unrolled

    def encoder(self, filters: Filters, table: NDArray[np.int64]) -> nn.Module:
        """Build the unrolled network: filter bank W_e, then the steps at every position, within each group."""
        mixing = filters.extras["mixing"].view(len(table), -1, filters.extras["mixing"].shape[1])
        return nn.Sequential(FilterBank(filters, table), self.unroll(mixing, filters.extras["threshold"]))

    @abstractmethod
    def make_initial_weights(self, atoms: Tensor) -> InitialWeights:
        """Return the weights with which the network takes steps of its solver, for atoms [d, m]."""

    @abstractmethod
    def unroll(self, mixing: Tensor, threshold: Tensor) -> Unrolled:
        """Build the steps from S [groups, m, m] and θ [groups × m]."""


@dataclass(frozen=True)
class ListaLearner(UnrolledLearner):
    """LISTA: z ← h_θ(W_e x + S z), `steps` times from h_θ(W_e x), trained to give the optimal codes z* of patches x.

    A dictionary D of unit-norm atoms is learned online, z* minimises ½‖x - D z‖² + λ‖z‖₁ exactly, and W_e, S and θ
    minimise ½‖z* - f(x)‖². Within stages S acts at each position, among the maps of a group.

    lam: λ, for patches scaled to unit variance a pixel. steps: T; 0 is the encoder h_θ(W_e x). start: `solver`, the
    values with which it takes steps of ISTA, or `random`. keep: part of the entries of S that may differ from 0, those
    that matter least in DᵀD gone; rank: S is of this rank (0: whole). patches: drawn once. dictionary_updates, updates,
    batch, rate: of the dictionary, and of Adam for the network, whose rate falls along half a cosine. centre: the mean
    of each patch over all its maps is taken out.
    """

    name: ClassVar[str] = "lista"

    def make_initial_weights(self, atoms: Tensor) -> InitialWeights:
        """Begin as ISTA."""
        return make_ista_weights(atoms, self.lam)

    def unroll(self, mixing: Tensor, threshold: Tensor) -> Unrolled:
        """Build LISTA's steps."""
        return Lista(mixing, threshold, self.steps, zeros_stay=self.keep < 1)


@dataclass(frozen=True)
class LcodLearner(UnrolledLearner):
    """LCoD: `steps` trained steps of coordinate descent, each moving the coefficient that would change most.

    The options are those of `lista`; more steps are needed, and each costs little. start: `solver` begins as coordinate
    descent; the paper finds that to help at many steps and to hurt at few.
    """

    name: ClassVar[str] = "lcod"

    steps: int = 10

    def make_initial_weights(self, atoms: Tensor) -> InitialWeights:
        """Begin as coordinate descent."""
        return make_descent_weights(atoms, self.lam)

    def unroll(self, mixing: Tensor, threshold: Tensor) -> Unrolled:
        """Build LCoD's steps."""
        return Lcod(mixing, threshold, self.steps, zeros_stay=self.keep < 1)


@hookimpl
def featbench_learners() -> list[type[FeatureLearner]]:
    """Register LISTA and LCoD."""
    return [ListaLearner, LcodLearner]
