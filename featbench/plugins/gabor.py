"""A bank of Gabor filters: the row G of Jarrett et al. 2009."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from featbench.evaluation.regimes import Family
from featbench.hookspecs import hookimpl
from featbench.learning.learner import FeatureLearner, FilterLearner
from featbench.learning.patches import PatchSource
from featbench.stages.filters import Bank, Filters

SAMPLED = 64
"""Patches sampled for each template that is chosen among them."""


@dataclass(frozen=True)
class Gabor(FilterLearner):
    """Gabor filters: combinations of orientations, two phases (even, odd), and as many wavelengths as fill the bank.

    The paper does not give its bank. Orientation o of n turns by π o / n. Wavelengths are spaced geometrically from
    `shortest` pixels to the filter's side; a filter too small for two of the shortest has that one alone, and as many
    orientations as fill the bank. The Gaussian envelope is round, with σ = `envelope` × side. Filters have zero mean
    and unit norm; gains are 1, biases 0.
    """

    name: ClassVar[str] = "gabor"
    family: ClassVar[Family] = "fixed"
    initial: ClassVar[str] = "G"
    source: ClassVar[str] = "Jarrett et al. 2009"

    orientations: int = 8
    shortest: float = 3.0
    envelope: float = 0.25

    def __post_init__(self) -> None:
        if self.orientations < 1 or self.shortest <= 2 or self.envelope <= 0:
            raise ValueError("orientations ≥ 1, shortest > 2 pixels and envelope > 0 are needed")

    def refusal(self, bank: Bank) -> str | None:
        """Gabors look at one map, and need room for a wave."""
        if bank.fan_in != 1:
            return f"Gabor filters are designed for one map, and {bank.fan_in} come in: see gabor-templates"
        if bank.size < 3:
            return f"filters of {bank.size}×{bank.size} are too small for a Gabor: at least 3×3"
        return None

    def filters(self, bank: Bank, patches: PatchSource | None, seed: int) -> Filters:
        """Return the first `bank.filters` of the bank, phases first, then orientations, then wavelengths."""
        orientations = self.orientations if bank.size >= 2 * self.shortest else math.ceil(bank.filters / 2)
        # As many wavelengths as fill the bank with two phases of each orientation; those left over are cut off below.
        count = math.ceil(bank.filters / (2 * orientations))
        ratio = bank.size / self.shortest
        waves = [self.shortest * ratio ** (i / max(count - 1, 1)) for i in range(count)]
        kernels = [
            _make_kernel(bank.size, wave, math.pi * orientation / orientations, phase, self.envelope * bank.size)
            for wave in waves
            for orientation in range(orientations)
            for phase in (0.0, math.pi / 2)
        ]
        return Filters(torch.stack(kernels[: bank.filters]).unsqueeze(1).float())


def _make_kernel(size: int, wavelength: float, angle: float, phase: float, sigma: float) -> Tensor:
    """Return one kernel [size, size] of zero mean and unit norm: a Gaussian of `sigma` times a cosine along `angle`."""
    axis = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    along = x * math.cos(angle) + y * math.sin(angle)
    kernel = torch.exp(-(x**2 + y**2) / (2 * sigma**2)) * torch.cos(2 * math.pi * along / wavelength + phase)
    # An even Gabor has a mean of its own, and would respond to flat patches.
    kernel = kernel - kernel.mean()
    normalised: Tensor = kernel / kernel.norm()
    return normalised


@dataclass(frozen=True)
class GaborTemplates(Gabor):
    """Gabor filters, and above them templates: the row GT of Jarrett et al. 2009, as in HMAX.

    Each filter of a later stage is a patch of the outputs below, at a random position of a random training image,
    divided by its norm; the paper says no more. template_scale: the norm they get.
    """

    name: ClassVar[str] = "gabor-templates"
    initial: ClassVar[str] = "GT"
    samples_images: ClassVar[bool] = True
    source: ClassVar[str] = "Jarrett et al. 2009; Serre, Wolf, Poggio 2005"

    template_scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.template_scale <= 0:
            raise ValueError(f"template_scale must be positive, not {self.template_scale}")

    def refusal(self, bank: Bank) -> str | None:
        """A single map gets Gabors, with what they need; any number of maps gets templates."""
        return super().refusal(bank) if bank.fan_in == 1 else None

    def filters(self, bank: Bank, patches: PatchSource | None, seed: int) -> Filters:
        """Return Gabors for a single map, else templates."""
        if bank.fan_in == 1:
            return super().filters(bank, patches, seed)
        assert patches is not None  # since samples_images is set
        # The source gives every group of a connection table the same patches: each chooses others by its own seed.
        sampled = patches.sample(SAMPLED * bank.filters)
        chosen = torch.randperm(len(sampled), generator=torch.Generator().manual_seed(seed))[: bank.filters]
        templates = sampled[chosen.to(sampled.device)]
        norms = templates.flatten(1).norm(dim=1).clamp_min(1e-12)
        return Filters(self.template_scale * templates / norms.view(-1, 1, 1, 1))


@hookimpl
def featbench_learners() -> list[type[FeatureLearner]]:
    """Register Gabor filters, alone and with templates."""
    return [Gabor, GaborTemplates]
