"""Dense SIFT: descriptors of patches on a grid, upright, of one scale (Lowe 2004; dense as in Lazebnik et al. 2006).

A descriptor is linear in the patch's oriented gradients but for its normalisation: 4×4 cells of 8 orientations. It does
not turn with the patch's main orientation.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

CELLS, ORIENTATIONS = 4, 8

LENGTH = CELLS * CELLS * ORIENTATIONS
"""Numbers in a descriptor: [row of cells, column of cells, orientation], the last fastest."""

CLIP = 0.2
"""No number may be larger in a descriptor of unit norm, before it is scaled to unit norm once more (Lowe 2004, 6.1)."""


def dense_sift(images: Tensor, size: int = 16, step: int = 8, floor: float = 0.0) -> Tensor:
    """Return the descriptors [n, rows, columns, 128] of the patches of `size` pixels every `step` pixels.

    images [n, height, width]. floor: a descriptor whose norm is below it keeps its small norm, so that flat patches
    stay near zero (Lazebnik's code, for grey values in [0, 1], has 1); 0: all but blank patches get unit norm.
    """
    if min(images.shape[1:]) < size or size < CELLS:
        raise ValueError(f"patches of {size}×{size} do not fit images of {images.shape[1]}×{images.shape[2]}")
    maps = oriented_gradients(images)
    weights = cell_weights(size).to(maps)
    # The weights of a cell are a product of one for rows and one for columns, and so is the pooling.
    n, _, height, width = maps.shape
    flat = maps.reshape(n * ORIENTATIONS, 1, height, width)
    rows = functional.conv2d(flat, weights[:, None, :, None], stride=(step, 1))
    cells = functional.conv2d(rows.flatten(0, 1).unsqueeze(1), weights[:, None, None, :], stride=(1, step))
    down, across = cells.shape[2:]
    cells = cells.view(n, ORIENTATIONS, CELLS, CELLS, down, across)
    return normalise(cells.permute(0, 4, 5, 2, 3, 1).reshape(n, down, across, LENGTH), floor)


def oriented_gradients(images: Tensor) -> Tensor:
    """Return the gradient's magnitude, shared between the two nearest of 8 orientations, [n, 8, height, width].

    Orientation k is the direction k · 45°, from right (0) to down (2). Central differences; one-sided at the border.
    """
    down, right = torch.gradient(images, dim=(1, 2))
    position = torch.atan2(down, right) * (ORIENTATIONS / (2 * math.pi))
    centres = torch.arange(ORIENTATIONS, dtype=images.dtype, device=images.device).view(1, -1, 1, 1)
    apart = (position.unsqueeze(1) - centres).remainder(ORIENTATIONS)
    share = 1 - torch.minimum(apart, ORIENTATIONS - apart)
    return share.clamp_min(0) * torch.hypot(down, right).unsqueeze(1)


def cell_weights(size: int) -> Tensor:
    """Return the weight of each of `size` pixels in each of the 4 cells along one side, [4, size].

    Linear interpolation between the centres of cells, times a Gaussian of half the patch's size around its middle.
    """
    side = size / CELLS
    pixels = torch.arange(size, dtype=torch.float64) + 0.5
    centres = (torch.arange(CELLS, dtype=torch.float64) + 0.5) * side
    shared = (1 - (pixels - centres[:, None]).abs() / side).clamp_min(0)
    return (shared * torch.exp(-0.5 * ((pixels - size / 2) / (size / 2)) ** 2)).float()


def normalise(descriptors: Tensor, floor: float = 0.0) -> Tensor:
    """Scale descriptors [..., 128] to unit norm, clip them at 0.2, and scale them again; blank ones stay zero."""
    norm = descriptors.norm(dim=-1, keepdim=True)
    clipped = (descriptors / norm.clamp_min(1e-12)).clamp_max(CLIP)
    scaled = clipped / clipped.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    return torch.where(norm > floor, scaled, descriptors) if floor > 0 else scaled
