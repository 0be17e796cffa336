"""Active sets: the few atoms of each patch that its code uses, and the systems over them, solved in batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE = 1e-12
"""Added to the diagonal of each Gram matrix, as a part of it: keeps it invertible where atoms are repeated."""

GROUP_ENTRIES = 2**17
"""Entries of the Gram matrices of one group, at most: 1 MiB in float64, about the cache of one core."""


@dataclass(frozen=True)
class ActiveSet:
    """Active atoms of r patches, k at most; shorter sets are padded with entries that couple to nothing.

    rows [r]: which patches. indices [r, k]: of the active entries in codes [n, m] laid flat. valid [r, k]: 1.0, or 0.0
    for padding. gram [r, k, k]: the Gram matrix of each patch's active atoms, the identity where it is padded.
    """

    rows: Tensor
    indices: Tensor
    valid: Tensor
    gram: Tensor

    def gather(self, values: Tensor) -> Tensor:
        """Return the active entries [r, k] of values [n, m]."""
        return values.reshape(-1)[self.indices] * self.valid

    def scatter(self, values: Tensor, entries: Tensor) -> None:
        """Set these patches of contiguous values [n, m] to zero but for their active entries [r, k]."""
        values[self.rows] = 0
        # Padding repeats an index of another entry: added as zero it is harmless, assigned it would overwrite.
        values.view(-1).scatter_add_(0, self.indices.view(-1), (entries * self.valid).view(-1))

    def solve(self, right: Tensor) -> Tensor:
        """Return x [r, k] with gram x = right [r, k]."""
        # `cholesky` would wait for a GPU to see whether it failed. What a failed factor gives has a large duality gap.
        factor, _ = torch.linalg.cholesky_ex(self.gram)
        return torch.cholesky_solve(right.unsqueeze(2), factor).squeeze(2)


def group_active_sets(gram: Tensor, is_active: Tensor) -> Iterator[ActiveSet]:
    """Yield the sets of a mask [n, m], sets of like size together; patches without active atoms are left out."""
    counts = is_active.sum(dim=1)
    order = counts.argsort(stable=True)
    # The active atoms of all patches, one patch after the other; those of a patch begin at `firsts`.
    columns = is_active.nonzero()[:, 1]
    firsts = counts.cumsum(0) - counts
    atoms = is_active.shape[1]
    for begin, end, size in _group_by_size(counts[order].tolist()):
        rows = order[begin:end]
        slots = torch.arange(size, device=rows.device)
        valid = slots < counts[rows].unsqueeze(1)
        active = columns[torch.where(valid, firsts[rows].unsqueeze(1) + slots, 0)]
        # Entry (i, j) of the Gram matrix is entry i · m + j of the flat one: one call gathers the blocks of a group.
        pairs = active.unsqueeze(2) * atoms + active.unsqueeze(1)
        blocks = gram.reshape(-1).index_select(0, pairs.view(-1)).view(pairs.shape)
        blocks *= valid.unsqueeze(2) & valid.unsqueeze(1)
        diagonal = blocks.diagonal(dim1=1, dim2=2)
        diagonal.copy_(torch.where(valid, (1 + RIDGE) * diagonal, 1))
        yield ActiveSet(rows, rows.unsqueeze(1) * atoms + active, valid.to(gram.dtype), blocks)


def _group_by_size(sizes: list[int]) -> Iterator[tuple[int, int, int]]:
    """Yield (begin, end, largest size) of runs of ascending sizes, none with more than GROUP_ENTRIES matrix entries.

    From the end: the last size of a run is its largest, to which the others are padded.
    """
    end = len(sizes)
    while end > 0 and sizes[end - 1] > 0:
        size = sizes[end - 1]
        begin = max(end - max(GROUP_ENTRIES // size**2, 1), 0)
        while sizes[begin] == 0:
            begin += 1
        yield begin, end, size
        end = begin
