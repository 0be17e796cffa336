"""Convolutional predictive sparse decomposition: one code for a whole window, in place of one for each patch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from featbench.errors import LearningError
from featbench.evaluation.regimes import Family
from featbench.hookspecs import hookimpl
from featbench.learning.learner import FeatureLearner, FilterLearner
from featbench.learning.patches import PatchSource
from featbench.learning.predictive_decomposition import (
    Decoder,
    PredictiveEncoder,
    Schedule,
    Wiring,
    draw_random_atoms,
    learn_predictive_decomposition,
)
from featbench.stages.connection_table import make_full_table
from featbench.stages.encoders import NONLINEARITIES, build_encoder
from featbench.stages.filters import Bank, Filters


@dataclass(frozen=True)
class ConvPsd(FilterLearner):
    """Convolutional PSD: filters need not repeat one another at every shift, since their codes share a window.

    Energy of a window x: ½‖x - Σ_k D_k ∗ z_k‖²_M + λ Σ_k ‖z_k‖₁ + α/2 Σ_k ‖z_k - F(x)_k‖² (Kavukcuoglu et al. 2010,
    eq. 3) with kernels D_k of unit norm; F(x) is the convolution and non-linearity that make the features. z_k has
    `positions`×`positions` values. The mask M weighs a pixel by how many of them reach it, the most being 1: at the
    border there are few. Each update finds z by `iterations` steps of FISTA from F(x), then moves D and F one step down
    the energy with z fixed.

    nonlinearity: tanh, shrink or smooth-shrink, as in psd. lam: λ, for windows scaled to unit variance a pixel. alpha:
    α. windows: drawn once. updates, batch, rate: of Adam, whose rate falls along half a cosine.
    """

    name: ClassVar[str] = "conv-psd"
    family: ClassVar[Family] = "unsupervised"
    source: ClassVar[str] = "Kavukcuoglu et al. 2010"

    nonlinearity: str = "tanh"
    lam: float = 3.0
    alpha: float = 1.0
    positions: int = 9
    windows: int = 5000
    updates: int = 1000
    batch: int = 8
    iterations: int = 15
    rate: float = 0.01

    def __post_init__(self) -> None:
        if self.nonlinearity not in NONLINEARITIES:
            raise ValueError(f"nonlinearity is one of {', '.join(NONLINEARITIES)}, not {self.nonlinearity!r}")
        if not (self.lam > 0 and self.alpha >= 0 and self.rate > 0):
            raise ValueError("lam > 0, alpha ≥ 0 and rate > 0 are needed")
        if min(self.positions, self.windows, self.updates, self.batch, self.iterations) < 1:
            raise ValueError("positions, windows, updates, batch and iterations must be at least 1")

    def filters(self, bank: Bank, patches: PatchSource | None, seed: int) -> Filters:
        """Learn the encoder's filters; the kernels are the extra `decoder`, [filters, fan_in, size, size]."""
        if patches is None:
            raise LearningError(f"{self.name} learns from windows of images and was given none")
        x = patches.sample(self.windows, bank.size + self.positions - 1)
        # In double: a sum of millions of squares loses its last digits in single precision.
        scale = float(x.double().square().mean().sqrt())
        if not math.isfinite(scale) or scale == 0:
            raise LearningError(f"the windows hold no signal for {self.name}: all of them are zero, or not finite")
        kernels = draw_random_atoms(bank, seed, self.batch).to(x.device)
        predictor = PredictiveEncoder(kernels, self.nonlinearity, threshold=self.lam / 2)
        decoder = WindowDecoder(kernels, self.lam, self.alpha, self.iterations, self.positions)
        schedule = Schedule(self.updates, self.batch, self.rate)
        learn_predictive_decomposition(x / scale, decoder, predictor, self.alpha, schedule, seed)
        wiring = Wiring(bank, make_full_table(bank.fan_in), bank.fan_in)
        return predictor.filters(scale, decoder.atoms, wiring)

    def encoder(self, filters: Filters, table: NDArray[np.int64]) -> nn.Module:
        """Build the learned encoder."""
        return build_encoder(self.nonlinearity, filters, table)


class WindowDecoder(Decoder):
    """½‖x - Σ_k D_k ∗ z_k‖²_M + λ‖z‖₁ + α/2 ‖z - F(x)‖² for windows x [n, fan_in, h, w], kernels D of unit norm.

    Codes are [n, filters, positions, positions]; ∗ is the full convolution, so that h = positions + size - 1. M [1, 1,
    h, w] has for each pixel the number of positions whose kernels reach it, divided by the largest such number.
    """

    def __init__(self, kernels: Tensor, lam: float, alpha: float, iterations: int, positions: int) -> None:
        super().__init__(kernels)
        self.lam, self.alpha, self.iterations, self.positions = lam, alpha, iterations, positions
        size = kernels.shape[-1]
        # Few positions reach the border: at full weight, its pixels would take codes that serve nothing else.
        ones = kernels.new_ones(1, 1, positions, positions)
        reached = functional.conv_transpose2d(ones, kernels.new_ones(1, 1, size, size))
        self.mask = reached / reached.max()

    def infer(self, y: Tensor, prediction: Tensor) -> Tensor:
        """Return codes by FISTA (Beck, Teboulle 2009) from the prediction.

        z = h_{λ/L}(x - ∇f(x)/L), x ← z + (t - 1)/t' (z - z_old), t' = (1 + √(1 + 4 t²))/2; L bounds the Hessian of f.
        """
        step = 1 / (self._compute_lipschitz() + self.alpha)
        codes = extrapolated = prediction
        momentum = 1.0
        for _ in range(self.iterations):
            # Correlation with the kernels is the adjoint of the convolution with them.
            gradient = functional.conv2d(self._compute_residual(y, extrapolated), self.atoms)
            gradient += self.alpha * (extrapolated - prediction)
            moved = functional.softshrink(extrapolated - step * gradient, step * self.lam)
            following = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
            extrapolated = torch.lerp(codes, moved, 1 + (momentum - 1) / following)
            codes, momentum = moved, following
        return codes

    def gradient(self, y: Tensor, codes: Tensor) -> Tensor:
        """Return the gradient of the mean energy with respect to the kernels."""
        residual = self._compute_residual(y, codes)
        # Correlates residuals with codes and sums over the images: conv2d sums over what it takes for maps.
        gradient = functional.conv2d(residual.transpose(0, 1), codes.transpose(0, 1))
        return gradient.transpose(0, 1) / len(y)

    def _compute_residual(self, y: Tensor, codes: Tensor) -> Tensor:
        """Return M (Σ_k D_k ∗ z_k - y), [n, fan_in, h, w]."""
        return (functional.conv_transpose2d(codes, self.atoms) - y) * self.mask

    def _compute_lipschitz(self) -> float:
        """Return a bound of the largest eigenvalue of the reconstruction's Hessian, by frequency.

        On a torus of the window's side convolutions are products at each frequency, so that the Hessian falls apart
        into one matrix D(f)ᴴ D(f) a frequency. Codes fill only so much of the torus that nothing wraps around it, and
        the mask, at most 1, only lowers the eigenvalue.
        """
        side = self.positions + self.atoms.shape[-1] - 1
        spectrum = torch.fft.rfft2(self.atoms, s=(side, side)).flatten(2).permute(2, 1, 0)
        filters, fan_in = self.atoms.shape[:2]
        # Of the two products with the same non-zero eigenvalues, the smaller.
        product = spectrum @ spectrum.mH if fan_in <= filters else spectrum.mH @ spectrum
        return float(torch.linalg.eigvalsh(product)[:, -1].max())


@hookimpl
def featbench_learners() -> list[type[FeatureLearner]]:
    """Register convolutional PSD."""
    return [ConvPsd]
