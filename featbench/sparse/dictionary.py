"""Online dictionary learning: atoms for which the sparse codes of patches cost least energy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from featbench.errors import LearningError, UsageError
from featbench.sparse.feature_sign import feature_sign
from featbench.sparse.inputs import Array, check_lam, read_matrix
from featbench.sparse.solution import Solution

TOLERANCE = 1e-3
"""Of the codes while learning: the atoms move further between two updates than finer codes would tell."""

UNUSED = 20
"""Updates in a row in which no patch of the batch uses an atom, before it counts as dead."""

FORGETTING = 3.0
"""Power ρ by which what earlier updates saw fades: after update t it weighs (1 - 1/t)^ρ of what it did."""

FLAT = 1e-10
"""A patch whose variance is less than this part of the mean energy of a patch is constant, up to rounding."""


Coder = Callable[..., Solution]
"""A solver: patches, dictionary and λ, with `tolerance` and `nonnegative` by name."""


@dataclass(frozen=True)
class Dictionary:
    """What was learned: atoms [d, m] of unit norm, in the patches' dtype; objective [updates], float64.

    objective: the mean of ½‖y - Dz‖² + λ‖z‖₁ over each update's batch, with the atoms as they were before the update.
    revived: how often an atom that nobody used was replaced.
    """

    atoms: Tensor
    objective: Tensor
    revived: int


@torch.no_grad()
def learn_dictionary(
    patches: Array,
    atoms: int,
    lam: float,
    *,
    updates: int = 500,
    batch: int = 256,
    seed: int = 0,
    nonnegative: bool = False,
    coder: Coder = feature_sign,
) -> Dictionary:
    """Minimise the mean of ½‖y - Dz‖² + λ‖z‖₁ over codes and over dictionaries D of unit-norm atoms, online.

    Each update codes a batch of the patches [n, d] by feature-sign search, adds the codes to A = Σ zzᵀ and B = Σ yzᵀ,
    in which earlier updates fade, and goes once through the atoms: d_j ← d_j + (b_j - D a_j)/A_jj, then to unit norm.
    `coder` may be another solver: `active_descent` is faster where atoms are many. The atoms begin as patches drawn at
    random. An atom that no patch used in 20 updates becomes the patch of the batch
    that is reconstructed worst. The same seed gives the same dictionary. Source: Mairal, Bach, Ponce, Sapiro 2009,
    algorithms 1 and 2, with the forgetting of section 3.4.

    Raises UsageError for settings that make no sense; LearningError for patches that are not finite, hold no signal, or
    are fewer than the atoms.
    """
    check_lam(lam)
    if min(atoms, updates, batch) < 1:
        raise UsageError(f"atoms, updates and batch must be at least 1, and are {atoms}, {updates} and {batch}")
    y = read_matrix(patches, "patches", "patch")
    learning = _Learning(y, atoms, lam, seed, nonnegative, coder)
    generator = torch.Generator().manual_seed(seed)
    objective = []
    for update in range(updates):
        chosen = torch.randint(len(y), (batch,), generator=generator).to(y.device)
        objective.append(learning.update(y[chosen].double(), revive=update < updates - UNUSED))
    return Dictionary(learning.dictionary.to(y.dtype), torch.stack(objective), learning.revived)


class _Learning:
    """Dictionary [d, m]; statistics A [m, m] and B [d, m]; how many updates each atom has gone unused, [m]."""

    def __init__(self, patches: Tensor, atoms: int, lam: float, seed: int, nonnegative: bool, coder: Coder) -> None:
        self.lam, self.nonnegative, self.coder = lam, nonnegative, coder
        self.dictionary = first_atoms(patches, atoms, seed)
        self.second = self.dictionary.new_zeros(atoms, atoms)
        self.mixed = torch.zeros_like(self.dictionary)
        self.unused = torch.zeros(atoms, dtype=torch.int64, device=patches.device)
        self.updates = self.revived = 0

    def update(self, patches: Tensor, revive: bool) -> Tensor:
        """Move the atoms down the energy of a batch [b, d] and those before it; return the batch's mean objective."""
        found = self.coder(patches, self.dictionary, self.lam, tolerance=TOLERANCE, nonnegative=self.nonnegative)
        codes = found.codes.double()
        self.updates += 1
        fading = (1 - 1 / self.updates) ** FORGETTING
        self.second.mul_(fading).addmm_(codes.T, codes)
        self.mixed.mul_(fading).addmm_(patches.T, codes)
        self.unused = torch.where((codes != 0).any(dim=0), 0, self.unused + 1)
        if revive:
            self._revive(patches, codes)
        self._descend()
        return found.objective.mean()

    def _descend(self) -> None:
        """Minimise over one atom after the other, the codes fixed."""
        # Atoms in rows, so that each is contiguous; they are changed in place, and so seen by those that follow.
        rows, mixed = self.dictionary.T.contiguous(), self.mixed.T.contiguous()
        curvatures = self.second.diagonal().tolist()
        for atom, curvature in enumerate(curvatures):
            if curvature > 0:
                moved = torch.addmv(mixed[atom], rows.T, self.second[atom], alpha=-1).add_(rows[atom], alpha=curvature)
                norm = torch.linalg.vector_norm(moved)
                rows[atom] = torch.where(norm > 0, moved / norm, rows[atom])
        self.dictionary = rows.T

    def _revive(self, patches: Tensor, codes: Tensor) -> None:
        dead = (self.unused >= UNUSED).nonzero().flatten()
        if len(dead) == 0:
            return
        error = (patches - codes @ self.dictionary.T).square().sum(dim=1)
        worst = error.argsort(descending=True, stable=True)[: len(dead)]
        norms = torch.linalg.vector_norm(patches[worst], dim=1)
        dead, worst, norms = dead[: len(worst)][norms > 0], worst[norms > 0], norms[norms > 0]
        rows = self.dictionary.T.contiguous()
        rows[dead] = patches[worst] / norms.unsqueeze(1)
        self.dictionary = rows.T
        self.second[dead], self.second[:, dead], self.mixed[:, dead], self.unused[dead] = 0, 0, 0, 0
        self.revived += len(dead)


def first_atoms(patches: Tensor, atoms: int, seed: int) -> Tensor:
    """Return patches drawn at random, scaled to unit norm, as columns [d, m]; flat ones are left out."""
    if len(patches) < atoms:
        raise LearningError(f"{len(patches)} patches are too few for {atoms} atoms: give more patches, or ask for less")
    norms = torch.linalg.vector_norm(patches, dim=1, dtype=torch.float64)
    # A patch of one pixel has no contrast but its size.
    contrast = patches.var(dim=1, correction=0) * patches.shape[1] if patches.shape[1] > 1 else norms.square()
    lively = (contrast > FLAT * norms.square().mean()).nonzero().flatten()
    if len(lively) < atoms:
        raise LearningError(
            f"{len(patches) - len(lively)} of {len(patches)} patches are constant and hold no signal: "
            f"{len(lively)} are left, too few for {atoms} atoms"
        )
    generator = torch.Generator().manual_seed(seed ^ 1)
    chosen = lively[torch.randperm(len(lively), generator=generator)[:atoms].to(patches.device)]
    columns: Tensor = (patches[chosen].double() / norms[chosen].unsqueeze(1)).T
    return columns
