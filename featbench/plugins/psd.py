"""Predictive sparse decomposition: the U of Jarrett et al. 2009."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from featbench.evaluation.regimes import Family
from featbench.hookspecs import hookimpl
from featbench.learning.learner import FeatureLearner, FilterLearner
from featbench.learning.patch_matrix import PatchMatrix
from featbench.learning.patches import PatchSource
from featbench.learning.predictive_decomposition import (
    PatchDecoder,
    PredictiveEncoder,
    Schedule,
    Wiring,
    draw_random_atoms,
    learn_predictive_decomposition,
)
from featbench.sparse.steps import make_soft_threshold, take_fista_steps
from featbench.stages.connection_table import make_full_table
from featbench.stages.encoders import NONLINEARITIES, build_encoder
from featbench.stages.filters import Bank, Filters
from featbench.types import IntArray


@dataclass(frozen=True)
class Psd(FilterLearner):
    """Predictive sparse decomposition: a dictionary B and an encoder F learned together on unlabelled patches.

    Energy of a patch y: ½‖y - B z‖² + λ‖z‖₁ + α/2 ‖z - F(y)‖², with unit-norm columns of B (Kavukcuoglu, Ranzato, LeCun
    2008, eq. 4, every quadratic term with ½). Each update takes a batch of patches, finds z by `iterations` steps of
    FISTA from F(y), then moves B and the encoder one step down the energy with z fixed.

    nonlinearity: F is g tanh(W y + b) (`tanh`), soft threshold θ of W y + b (`shrink`, Gregor, LeCun 2010), or its
    smooth form (`smooth-shrink`, Kavukcuoglu et al. 2010, eq. 5). lam: λ, for patches scaled to unit variance a pixel.
    alpha: α. patches: drawn once. updates, batch, rate: of Adam, whose rate falls along half a cosine. centre: the mean
    of each patch over all its maps is taken out.
    """

    name: ClassVar[str] = "psd"
    family: ClassVar[Family] = "unsupervised"
    source: ClassVar[str] = "Kavukcuoglu, Ranzato, LeCun 2008"

    nonlinearity: str = "tanh"
    lam: float = 1.0
    alpha: float = 1.0
    patches: int = 20_000
    updates: int = 2000
    batch: int = 256
    iterations: int = 15
    rate: float = 0.01
    centre: bool = True

    def __post_init__(self) -> None:
        if self.nonlinearity not in NONLINEARITIES:
            raise ValueError(f"nonlinearity is one of {', '.join(NONLINEARITIES)}, not {self.nonlinearity!r}")
        if not (self.lam > 0 and self.alpha >= 0 and self.rate > 0):
            raise ValueError("lam > 0, alpha ≥ 0 and rate > 0 are needed")
        if min(self.patches, self.updates, self.batch, self.iterations) < 1:
            raise ValueError("patches, updates, batch and iterations must be at least 1")

    def filters(self, bank: Bank, patches: PatchSource | None, seed: int) -> Filters:
        """Learn the encoder's filters; the dictionary is the extra `decoder`, [filters, fan_in, size, size]."""
        return self.connected(bank, make_full_table(bank.fan_in), bank.fan_in, patches, seed)

    def connected(self, bank: Bank, table: IntArray, maps: int, patches: PatchSource | None, seed: int) -> Filters:
        """Learn the filters of all groups together, as one dictionary that decodes all maps.

        Learned apart, each group would find the same few directions of largest variance.
        """
        # A filter of one value would vanish with its mean, however many maps the other groups see.
        centre = self.centre and bank.fan_in * bank.size**2 > 1
        matrix = PatchMatrix.sample(self.name, bank, patches, self.patches, centre=centre)
        wiring = Wiring(bank, table, maps)
        atoms = wiring.spread(draw_random_atoms(bank, seed, self.batch)).to(matrix.rows.device)
        # The encoder starts from the atoms themselves, whose products with a patch are a first guess of its codes.
        predictor = PredictiveEncoder(atoms, self.nonlinearity, threshold=self.lam / 2, centred=matrix.centred)
        decoder = PatchDecoder(atoms, self.alpha, self._infer)
        schedule = Schedule(self.updates, self.batch, self.rate)
        learn_predictive_decomposition(matrix.rows, decoder, predictor, self.alpha, schedule, seed)
        return predictor.filters(matrix.scale, decoder.atoms, wiring)

    def encoder(self, filters: Filters, table: NDArray[np.int64]) -> nn.Module:
        """Build the learned encoder."""
        return build_encoder(self.nonlinearity, filters, table)

    def _infer(self, gram: Tensor, correlations: Tensor, lipschitz: float, start: Tensor) -> Tensor:
        """Return codes [n, filters] that minimise ½ zᵀGz - cᵀz + λ‖z‖₁, up to the steps that are taken."""
        return take_fista_steps(gram, correlations, start, make_soft_threshold(self.lam), self.iterations, lipschitz)


@hookimpl
def featbench_learners() -> list[type[FeatureLearner]]:
    """Register PSD."""
    return [Psd]
