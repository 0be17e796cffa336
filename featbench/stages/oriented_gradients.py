"""Histograms of oriented gradients: the chain that dense SIFT and HOG share.

A filter bank (the two derivatives) → orientation bins → Gaussian pooling over cells → normalisation: a stage, with
filters designed by hand. Before its normalisation a descriptor is linear in the patch's oriented gradients, so that
these are computed once for all patches that overlap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

CLIP = 0.2
"""Largest number in a descriptor of unit norm, before it is scaled to unit norm again (Lowe 2004, section 6.1)."""


@dataclass(frozen=True)
class Histograms:
    """A descriptor's cells × cells cells, each with a histogram of `orientations` bins.

    Bin k lies at (k + first) / orientations of a turn, counter-clockwise from the right; of half a turn where opposite
    gradients count as one (`signed` False). `first` has to be such that a bin lies in the middle of that range.
    """

    cells: int
    orientations: int
    signed: bool
    first: float = 0.0

    @property
    def length(self) -> int:
        """Numbers in a descriptor: [row of cells, column of cells, orientation], the last fastest."""
        return self.cells * self.cells * self.orientations

    def check(self, shape: tuple[int, ...], size: int, step: int) -> None:
        """Raise a `ValueError` if patches of `size` pixels every `step` pixels do not fit images [..., height, width].

        A patch has at least a pixel for each cell.
        """
        if size < self.cells or step < 1:
            raise ValueError(f"size ≥ {self.cells} and step ≥ 1 are needed, not {size} and {step}")
        if min(shape[-2:]) < size:
            raise ValueError(f"patches of {size}×{size} do not fit images of {shape[-2]}×{shape[-1]}")

    def compute_oriented_gradients(self, images: Tensor) -> Tensor:
        """Return the gradient's magnitude, shared between the two nearest bins, [height, n, orientations, width].

        images [height, n, width]: with rows first, pooling needs no copies. Central differences; one-sided at borders.
        """
        # s_k = |g| max(0, 1 - |p - c_k|), with p the angle in units of bins and c_k the centre of bin k. All terms are
        # multiplied by |g| from the start, so that where the gradient vanishes no angle is needed.
        down, right = torch.gradient(images, dim=(0, 2))
        if not self.signed:
            # Opposite gradients become one that points to the right: angles from -π/2 to π/2.
            down, right = torch.where(right < 0, -down, down), right.abs()
        half = self.orientations / 2
        magnitude = torch.hypot(down, right).unsqueeze(2)
        # The position among the bins, from -half to half, times the magnitude. Negative: rows count downwards.
        bins_per_radian = half / math.pi if self.signed else self.orientations / math.pi
        position = torch.atan2(down, right).unsqueeze(2).mul_(-bins_per_radian).mul_(magnitude)
        centres = torch.arange(self.orientations, dtype=images.dtype, device=images.device).add_(self.first)
        centres = torch.where(centres > half, centres - self.orientations, centres).view(-1, 1)
        shares = torch.addcmul(position, magnitude, centres, value=-1).abs_()
        torch.sub(magnitude, shares, out=shares)
        # The bin in the middle of the range is reached from both ends of it: at p = half and at p = -half.
        last = int(half - self.first)
        shares[:, :, last] = (position.abs() - (half - 1) * magnitude).squeeze(2)
        return shares.clamp_min_(0)

    def pool(self, maps: Tensor, size: int, step: int) -> Tensor:
        """Sum oriented gradients [height, n, orientations, width] over cells: [n, rows, columns, length].

        The grid of patches is centred: pixels that it does not cover lie on both sides.
        """
        # A cell's weight is a product of one for the row and one for the column, w_i(y) w_j(x). So pooling is two
        # batched matrix products, over rows and then over columns, each on overlapping windows that are views.
        height, n, _, width = maps.shape
        weights = compute_cell_weights(size, self.cells).to(maps)
        windows = maps.view(height, -1)[(height - size) % step // 2 :].unfold(0, size, step).transpose(1, 2)
        bands = torch.bmm(weights.expand(len(windows), -1, -1), windows)
        rows = len(bands)
        windows = bands.view(-1, width)[:, (width - size) % step // 2 :].unfold(1, size, step).permute(1, 2, 0)
        cells = torch.bmm(weights.expand(len(windows), -1, -1), windows)
        cells = cells.view(len(cells), self.cells, rows, self.cells, n, self.orientations)
        return cells.permute(4, 2, 0, 3, 1, 5).reshape(n, rows, len(cells), self.length)


def compute_cell_weights(size: int, cells: int) -> Tensor:
    """Return the weight of each of `size` pixels in each of the cells along one side, float64 [cells, size].

    Linear interpolation between the centres of cells, times a Gaussian of half the patch's size around its middle.
    """
    side = size / cells
    pixels = torch.arange(size, dtype=torch.float64) + 0.5
    centres = (torch.arange(cells, dtype=torch.float64) + 0.5) * side
    # Bilinear interpolation in space: a pixel between two centres counts for both (Lowe 2004, section 6.1).
    shared = (1 - (pixels - centres[:, None]).abs() / side).clamp_min(0)
    return shared * torch.exp(-0.5 * ((pixels - size / 2) / (size / 2)) ** 2)


def normalise(descriptors: Tensor, floor: float = 0.0, blank: float | Tensor = 0.0) -> Tensor:
    """Scale descriptors [..., length] to unit norm, clip them at 0.2, and scale them again.

    A descriptor of low contrast, whose norm is below `floor`, is scaled to its norm divided by `floor` instead of 1.
    Those whose norm is not above `blank` become zero.
    """
    # Clipping at 0.2 of the norm is scaling, clipping and scaling back: one pass less.
    norm = torch.linalg.vector_norm(descriptors, dim=-1, keepdim=True)
    clipped = torch.minimum(descriptors, CLIP * norm)
    wanted = (norm / floor).clamp_max(1) if floor > 0 else torch.ones_like(norm)
    scale = wanted / torch.linalg.vector_norm(clipped, dim=-1, keepdim=True)
    return clipped.mul_(torch.where(norm > blank, scale, 0))
