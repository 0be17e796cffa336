"""Active sets: the few atoms of each patch that its code uses, and the systems over them, solved in batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE = 1e-12
"""Added to the diagonal of each Gram matrix, as a part of it: keeps it invertible where atoms are repeated."""

LIMIT = 2**17
"""Entries of the Gram matrices of one group."""


@dataclass(frozen=True)
class ActiveSet:
    """Active atoms of r patches, k at most; shorter sets are filled up with entries that couple to nothing.

    rows [r]: which patches. places [r, k]: of the active entries in codes [n, m] laid flat. valid [r, k], 1.0 or 0.0.
    gram [r, k, k].
    """

    rows: Tensor
    places: Tensor
    valid: Tensor
    gram: Tensor

    def take(self, values: Tensor) -> Tensor:
        """Return the active entries [r, k] of values [n, m]."""
        return values.reshape(-1)[self.places] * self.valid

    def put(self, values: Tensor, entries: Tensor) -> None:
        """Set these patches of contiguous values [n, m] to zero but for their active entries [r, k]."""
        values[self.rows] = 0
        values.view(-1).scatter_add_(0, self.places.view(-1), (entries * self.valid).view(-1))

    def solve(self, right: Tensor) -> Tensor:
        """Return x [r, k] with gram x = right [r, k]."""
        factor, _ = torch.linalg.cholesky_ex(self.gram)
        return torch.cholesky_solve(right.unsqueeze(2), factor).squeeze(2)


def active_sets(gram: Tensor, active: Tensor) -> Iterator[ActiveSet]:
    """Yield the sets of a mask [n, m], sets of like size together; patches without active atoms are left out."""
    counts = active.sum(dim=1)
    order = counts.argsort(stable=True)
    columns = active.nonzero()[:, 1]
    firsts = counts.cumsum(0) - counts
    atoms = active.shape[1]
    for begin, end, size in _groups(counts[order].tolist()):
        rows = order[begin:end]
        slots = torch.arange(size, device=rows.device)
        valid = slots < counts[rows].unsqueeze(1)
        indices = columns[torch.where(valid, firsts[rows].unsqueeze(1) + slots, 0)]
        pairs = indices.unsqueeze(2) * atoms + indices.unsqueeze(1)
        blocks = gram.reshape(-1).index_select(0, pairs.view(-1)).view(pairs.shape)
        blocks *= valid.unsqueeze(2) & valid.unsqueeze(1)
        diagonal = blocks.diagonal(dim1=1, dim2=2)
        diagonal.copy_(torch.where(valid, (1 + RIDGE) * diagonal, 1))
        yield ActiveSet(rows, rows.unsqueeze(1) * atoms + indices, valid.to(gram.dtype), blocks)


def _groups(sizes: list[int]) -> Iterator[tuple[int, int, int]]:
    """Yield (begin, end, largest size) of runs of ascending sizes, so that no run holds more than LIMIT entries."""
    end = len(sizes)
    while end > 0 and sizes[end - 1] > 0:
        size = sizes[end - 1]
        begin = max(end - max(LIMIT // size**2, 1), 0)
        while sizes[begin] == 0:
            begin += 1
        yield begin, end, size
        end = begin
