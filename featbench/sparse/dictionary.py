"""Online dictionary learning: atoms for which the sparse codes of patches have the least energy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from featbench.errors import LearningError, UsageError
from featbench.sparse.feature_sign import feature_sign
from featbench.sparse.inputs import Array, check_lam, read_matrix
from featbench.sparse.solution import Solution
from featbench.system.updates import Updates

TOLERANCE = 1e-3
"""Duality gap of the codes while learning: an update moves the atoms further than the error of finer codes."""

UNUSED = 20
"""Updates in a row in which no patch of the batch uses an atom, before it counts as dead."""

FORGETTING = 3.0
"""Power ρ by which the statistics of earlier updates fade: in update t they are multiplied by (1 - 1/t)^ρ."""

FLAT = 1e-10
"""A patch whose variance is less than this part of the mean energy of a patch is constant, up to rounding."""

Coder = Callable[..., Solution]
"""A solver: patches, dictionary and λ, with `tolerance` and `nonnegative` by name."""


@dataclass(frozen=True)
class Dictionary:
    """A learned dictionary, and how its objective fell.

    Attributes
    ----------
    atoms : torch.Tensor
        Atoms in columns, [d, m], of unit norm, in the patches' dtype and on their device.
    objective : torch.Tensor
        Mean of ½‖y - Dz‖² + λ‖z‖₁ over the batch of each update, [updates], float64; with the atoms as they were before
        the update.
    revived : int
        How often an atom that no patch used was replaced.
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

    Each update codes a batch of patches, adds the codes to the statistics A = Σ zzᵀ and B = Σ yzᵀ, in which earlier
    updates fade, and goes once through the atoms: d_j ← d_j + (b_j - D a_j)/A_jj, then to unit norm.

    Parameters
    ----------
    patches : torch.Tensor or numpy.ndarray
        Patches y in rows, [n, d], float32 or float64, at least as many as atoms.
    atoms : int
        Number m of atoms.
    lam : float
        λ > 0, in the unit of a product of a patch and an atom of unit norm.
    updates : int, default 500
        Updates of the atoms.
    batch : int, default 256
        Patches in an update, drawn at random with replacement.
    seed : int, default 0
        Decides the first atoms and the batches: the same seed gives the same dictionary.
    nonnegative : bool, default False
        Learn for codes z ≥ 0.
    coder : callable, default feature_sign
        The solver that finds the codes; `active_descent` is faster where atoms are many.

    Returns
    -------
    Dictionary
        Atoms [d, m], the objective of every update, and how many atoms were replaced.

    Raises
    ------
    UsageError
        Shapes, types or settings make no sense.
    LearningError
        Patches are not finite, hold no signal, or are fewer than the atoms.

    Notes
    -----
    The atoms begin as patches drawn at random. An atom that no patch used in 20 updates becomes the patch of the batch
    that is reconstructed worst.

    References
    ----------
    Mairal, Bach, Ponce, Sapiro 2009, algorithms 1 and 2, with the forgetting of section 3.4.
    """
    check_lam(lam)
    if min(atoms, updates, batch) < 1:
        raise UsageError(f"atoms, updates and batch must be at least 1, and are {atoms}, {updates} and {batch}")
    y = read_matrix(patches, "patches", "patch")
    learner = _OnlineLearner(y, atoms, lam, seed, nonnegative, coder)
    generator = torch.Generator().manual_seed(seed)
    objective = []
    watched = Updates(updates, "learning a dictionary")
    for update in watched:
        # Drawn on the CPU: a GPU's generator would give another dictionary for the same seed.
        chosen = torch.randint(len(y), (batch,), generator=generator).to(y.device)
        objective.append(learner.update(y[chosen].double(), revive=update < updates - UNUSED))
        watched.energy = objective[-1]
    return Dictionary(learner.dictionary.to(y.dtype), torch.stack(objective), learner.revived)


class _OnlineLearner:
    """Dictionary D [d, m], statistics A = Σ zzᵀ [m, m] and B = Σ yzᵀ [d, m].

    unused [m]: updates since a patch used each atom. updates, revived: how many there were.
    """

    def __init__(self, patches: Tensor, atoms: int, lam: float, seed: int, nonnegative: bool, coder: Coder) -> None:
        self.lam, self.nonnegative, self.coder = lam, nonnegative, coder
        self.dictionary = draw_first_atoms(patches, atoms, seed)
        self.code_moments = self.dictionary.new_zeros(atoms, atoms)
        self.cross_moments = torch.zeros_like(self.dictionary)
        self.unused = torch.zeros(atoms, dtype=torch.int64, device=patches.device)
        self.updates = self.revived = 0

    def update(self, patches: Tensor, revive: bool) -> Tensor:
        """Move the atoms down the energy of a batch [b, d] and those before it; return the batch's mean objective."""
        solution = self.coder(patches, self.dictionary, self.lam, tolerance=TOLERANCE, nonnegative=self.nonnegative)
        codes = solution.codes.double()
        self.updates += 1
        # 0 in the first update, and towards 1 later: the first codes, of atoms that were not learned yet, fade fastest.
        fading = (1 - 1 / self.updates) ** FORGETTING
        self.code_moments.mul_(fading).addmm_(codes.T, codes)
        self.cross_moments.mul_(fading).addmm_(patches.T, codes)
        self.unused = torch.where((codes != 0).any(dim=0), 0, self.unused + 1)
        if revive:
            self._replace_dead_atoms(patches, codes)
        self._update_atoms()
        return solution.objective.mean()

    def _update_atoms(self) -> None:
        """Minimise over one atom after the other, the codes fixed: d_j ← d_j + (b_j - D a_j)/A_jj, to unit norm.

        That is A_jj d_j + b_j - D a_j to unit norm: the factor A_jj goes with the norm, and nothing is divided by it.
        """
        # Atoms in rows, so that each is contiguous. They change in place: each update uses those before it.
        rows, cross_moments = self.dictionary.T.contiguous(), self.cross_moments.T.contiguous()
        # All at once, on the CPU: asked for one by one on a GPU, each would wait for it.
        curvatures = self.code_moments.diagonal().tolist()
        for atom, curvature in enumerate(curvatures):
            if curvature > 0:
                moved = torch.addmv(cross_moments[atom], rows.T, self.code_moments[atom], alpha=-1).add_(
                    rows[atom], alpha=curvature
                )
                # A tensor, not a float: a GPU is not waited for.
                norm = torch.linalg.vector_norm(moved)
                rows[atom] = torch.where(norm > 0, moved / norm, rows[atom])
        self.dictionary = rows.T

    def _replace_dead_atoms(self, patches: Tensor, codes: Tensor) -> None:
        """Replace atoms that no patch used by the patches of the batch that are reconstructed worst.

        Their statistics begin again: those of the old atom would turn the new one back.
        """
        dead = (self.unused >= UNUSED).nonzero().flatten()
        if len(dead) == 0:
            return
        # One patch for each dead atom; a batch may have fewer patches than atoms are dead, or patches of zeros.
        error = (patches - codes @ self.dictionary.T).square().sum(dim=1)
        worst = error.argsort(descending=True, stable=True)[: len(dead)]
        norms = torch.linalg.vector_norm(patches[worst], dim=1)
        dead, worst, norms = dead[: len(worst)][norms > 0], worst[norms > 0], norms[norms > 0]
        rows = self.dictionary.T.contiguous()
        rows[dead] = patches[worst] / norms.unsqueeze(1)
        self.dictionary = rows.T
        self.code_moments[dead], self.code_moments[:, dead], self.cross_moments[:, dead], self.unused[dead] = 0, 0, 0, 0
        self.revived += len(dead)


def draw_first_atoms(patches: Tensor, atoms: int, seed: int) -> Tensor:
    """Return patches drawn at random, scaled to unit norm, as columns [d, m]; flat ones are left out."""
    if len(patches) < atoms:
        raise LearningError(f"{len(patches)} patches are too few for {atoms} atoms: give more patches, or ask for less")
    norms = torch.linalg.vector_norm(patches, dim=1, dtype=torch.float64)
    # A patch of one pixel has no variance: its energy stands in for it.
    contrast = patches.var(dim=1, correction=0) * patches.shape[1] if patches.shape[1] > 1 else norms.square()
    textured = (contrast > FLAT * norms.square().mean()).nonzero().flatten()
    if len(textured) < atoms:
        raise LearningError(
            f"{len(patches) - len(textured)} of {len(patches)} patches are constant and hold no signal: "
            f"{len(textured)} are left, too few for {atoms} atoms"
        )
    generator = torch.Generator().manual_seed(seed ^ 1)
    chosen = textured[torch.randperm(len(textured), generator=generator)[:atoms].to(patches.device)]
    columns: Tensor = (patches[chosen].double() / norms[chosen].unsqueeze(1)).T
    return columns
