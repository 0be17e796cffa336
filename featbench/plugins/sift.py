"""Descriptors designed by hand, on a grid: SIFT and HOG."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor, nn

from featbench.errors import UsageError
from featbench.evaluation.regimes import Family
from featbench.features.descriptors import HOG, SIFT, dense_hog, dense_sift
from featbench.hookspecs import hookimpl
from featbench.learning.learner import FeatureLearner, NetworkLearner
from featbench.learning.patches import MapSource
from featbench.stages.specs import Shape


class _Descriptors(nn.Module):
    """Takes maps [n, 1, height, width], of any size that holds a patch, to descriptors [n, numbers, rows, columns]."""

    # A call keeps nothing on the module: descriptors are a function of the maps alone.
    reentrant: ClassVar[bool] = True

    def __init__(self, describe: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.describe = describe

    def forward(self, x: Tensor) -> Tensor:
        return self.describe(x[:, 0]).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Sift(NetworkLearner):
    """Dense SIFT: upright descriptors of 4×4 cells with 8 orientations, of patches of `size` pixels every `step`.

    A descriptor whose norm is below `floor`, in units of the maps that come in, keeps its small norm: divided by
    `floor`, so that nothing jumps there. With 0 every patch that is not blank gets unit norm.
    """

    name: ClassVar[str] = "sift"
    family: ClassVar[Family] = "fixed"
    initial: ClassVar[str] = "SIFT"
    source: ClassVar[str] = "Lowe 2004; dense as in Lazebnik, Schmid, Ponce 2006"
    differentiable: ClassVar[bool] = False

    size: int = 16
    step: int = 8
    floor: float = 0.0

    def __post_init__(self) -> None:
        if self.size < SIFT.cells or self.step < 1 or not self.floor >= 0:
            raise ValueError(f"size ≥ {SIFT.cells}, step ≥ 1 and floor ≥ 0 are needed")

    def refusal(self, shape: Shape) -> str | None:
        """SIFT describes one map, and needs room for a patch."""
        side = min(shape[1:])
        remedy = f"try sift(size={side})" if side >= SIFT.cells else "images with more pixels are needed"
        return _find_refusal("SIFT", shape, self.size, remedy)

    def network(self, shape: Shape, maps: MapSource | None, seed: int) -> nn.Module:
        """Return a module from [n, 1, height, width] to [n, 128, rows, columns]."""
        _refuse(self.refusal(shape))
        return _Descriptors(partial(dense_sift, size=self.size, step=self.step, floor=self.floor))


@dataclass(frozen=True)
class Hog(NetworkLearner):
    """HOG: blocks of 2×2 cells of `cell` pixels that begin every cell, with 9 orientations without sign, L2-Hys."""

    name: ClassVar[str] = "hog"
    family: ClassVar[Family] = "fixed"
    initial: ClassVar[str] = "HOG"
    source: ClassVar[str] = "Dalal, Triggs 2005"
    differentiable: ClassVar[bool] = False

    cell: int = 8

    def __post_init__(self) -> None:
        if self.cell < 1:
            raise ValueError("cell ≥ 1 is needed")

    def refusal(self, shape: Shape) -> str | None:
        """HOG describes one map, and needs room for a block."""
        side = min(shape[1:])
        remedy = f"try hog(cell={side // HOG.cells})" if side >= HOG.cells else "images with more pixels are needed"
        return _find_refusal("HOG", shape, HOG.cells * self.cell, remedy)

    def network(self, shape: Shape, maps: MapSource | None, seed: int) -> nn.Module:
        """Return a module from [n, 1, height, width] to [n, 36, rows, columns]."""
        _refuse(self.refusal(shape))
        return _Descriptors(partial(dense_hog, cell=self.cell))


def _find_refusal(name: str, shape: Shape, size: int, remedy: str) -> str | None:
    """Return why maps of this shape cannot be described, or None."""
    maps, height, width = shape
    if maps != 1:
        return f"{name} describes one map, and {maps} come in: make the images grey"
    if min(height, width) < size:
        return f"patches of {size}×{size} pixels do not fit images of {height}×{width}: {remedy}"
    return None


def _refuse(reason: str | None) -> None:
    """Raise a `UsageError` if there is a reason."""
    if reason:
        raise UsageError(reason)


@hookimpl
def featbench_learners() -> list[type[FeatureLearner]]:
    """Register the descriptors."""
    return [Sift, Hog]
