"""Feature-sign search: the exact active-set solver."""

from __future__ import annotations

import torch
from torch import Tensor

from featbench.sparse.active_set import ActiveSet, group_active_sets
from featbench.sparse.fista import Fista
from featbench.sparse.inputs import Array, read_inputs
from featbench.sparse.iterative_solver import IterativeSolver, solve_in_blocks
from featbench.sparse.problem import Lasso, Point
from featbench.sparse.solution import Solution

EXACT = 1e-8
"""Largest duality gap, as a part of the objective: tiny, since one more exact solution costs so little."""

PRIMAL_DUAL_STEPS = 10
"""Iterations that correct all signs at once, before the published search takes over for the few patches that remain."""

FISTA_ROUND, FISTA_ROUNDS = 5, 60
"""Steps of FISTA between two looks at the first signs, and how often it looks, at most."""

SETTLED = 1.2
"""Signs of a patch that change, on average, in a round of FISTA: so few that it stops."""

FISTA_STEP = 1.3
"""Length of those steps, as a multiple of 1/L. More than FISTA's proof allows; up to 4/3 no direction grows, and a
guess of signs is all that is wanted."""

STATIONARY = 1e-7
"""Largest gradient of the energy on the active set, as a part of λ, where the quadratic problem counts as solved."""


class FeatureSign(IterativeSolver):
    """Guesses the active set A of non-zero coefficients and their signs θ, and solves G_A z_A = (Dᵀy)_A - λθ_A."""

    state = (*IterativeSolver.state, "correlations", "signs")

    def __init__(self, lasso: Lasso, patches: Tensor, start: Tensor | None) -> None:
        super().__init__(lasso, patches, start)
        self.correlations = patches @ lasso.dictionary
        self.signs = self.codes.sign()
        self.has_signs = start is not None
        self.count = 0

    def advance(self, point: Point, steps: int) -> None:
        """Take one iteration: it needs the gradient at its point, which is computed when the gap is checked."""
        assert steps == 1
        if self.count < PRIMAL_DUAL_STEPS:
            self._take_primal_dual_step(point)
        else:
            self._take_search_step(point)
        self.count += 1

    def _take_primal_dual_step(self, point: Point) -> None:
        """Solve for the codes of the guessed signs, after a correction of the guess by the codes before.

        A coefficient that came out with the wrong sign leaves the active set; a zero with |gradient| > λ enters it.
        """
        if self.has_signs:
            entering = -point.gradient.sign() * (self.lasso.violation(point.gradient) > self.lasso.lam)
            staying = self.signs * (self.codes * self.signs > 0)
            # Nothing guarantees that correcting all signs at once lowers the energy: a patch may go through the same
            # guesses again and again. Iterations of this kind are few, therefore, and the search does the rest.
            self.signs = torch.where(self.signs != 0, staying, entering)
        else:
            self.signs, self.has_signs = self._find_first_signs(), True
        right = self.correlations - self.lasso.lam * self.signs
        self.codes = torch.zeros_like(self.codes)
        for active in group_active_sets(self.lasso.gram, self.signs != 0):
            active.scatter(self.codes, active.solve(active.gather(right)))
        if self.count == PRIMAL_DUAL_STEPS - 1:
            # The search that follows takes the signs from the codes: none may contradict its guess.
            self.codes = self.codes * (self.codes * self.signs > 0)

    def _find_first_signs(self) -> Tensor:
        """Return the signs that some steps of FISTA find; float32 will do, since they are a guess."""
        fista = Fista(self.lasso.to_single(), self.patches.float(), None)
        fista.step_scale = FISTA_STEP
        signs = fista.codes.sign()
        for _ in range(FISTA_ROUNDS):
            fista.accelerate(FISTA_ROUND)
            before, signs = signs, fista.codes.sign()
            if int((signs != before).sum()) <= SETTLED * len(signs):
                break
        # Patches that overflow in float32 give NaN: they start from no signs, and are solved all the same.
        return torch.nan_to_num(signs).to(self.codes.dtype)

    def _take_search_step(self, point: Point) -> None:
        """Take one step of the published search: activate a coefficient if it is time, solve, search along the line.

        That lowers the energy strictly, so no pair of active set and signs comes twice and the search ends.
        """
        lam, signs = self.lasso.lam, self.codes.sign()
        # With the signs fixed the energy is quadratic on the active set; its gradient there is ∇f + λθ.
        subgradient = point.gradient + lam * signs
        stationary = (subgradient * signs).abs().amax(dim=1, keepdim=True) <= STATIONARY * lam
        violation = self.lasso.violation(point.gradient).masked_fill_(signs != 0, 0)
        # A coefficient is activated only where the present active set is solved: until then the others' gradients move.
        largest, candidate = violation.max(dim=1, keepdim=True)
        entering = stationary & (largest > lam)
        signs.scatter_add_(1, candidate, torch.where(entering, -point.gradient.gather(1, candidate).sign(), 0))
        subgradient = point.gradient + lam * signs
        codes = self.codes.clone()
        for active in group_active_sets(self.lasso.gram, signs != 0):
            # Newton's direction, which is exact for a quadratic: G_A direction = -(∇f + λθ)_A.
            direction = -active.solve(active.gather(subgradient))
            gradient = active.gather(point.gradient)
            active.scatter(codes, _search_line(active, active.gather(self.codes), direction, gradient, self.lasso))
        self.codes = codes


def _search_line(active: ActiveSet, codes: Tensor, direction: Tensor, gradient: Tensor, lasso: Lasso) -> Tensor:
    """Return the best of codes + t direction [r, k] over t = 1 and those t < 1 where a coefficient reaches zero.

    The energy is convex and, between two such t, a parabola: its change is t ∇fᵀp + ½t² pᵀGp + λ(‖z + t p‖₁ - ‖z‖₁).
    Where z ≥ 0 is asked for, the search ends with the first t.
    """
    crossing = codes * (codes + direction) < 0
    # One candidate for each coefficient, 1 where it does not cross; the full step is appended, since all may cross.
    steps = torch.where(crossing, -codes / torch.where(crossing, direction, 1), 1)
    steps = torch.cat([steps, torch.ones_like(steps[:, :1])], dim=1)
    slope = (gradient * direction).sum(dim=1, keepdim=True)
    curvature = (direction * torch.bmm(active.gram, direction.unsqueeze(2)).squeeze(2)).sum(dim=1, keepdim=True)
    l1_norms = torch.addcmul(codes.unsqueeze(1), steps.unsqueeze(2), direction.unsqueeze(1)).abs_().sum(dim=2)
    l1_changes = l1_norms - codes.abs().sum(dim=1, keepdim=True)
    changes = steps * slope + 0.5 * steps.square() * curvature + lasso.lam * l1_changes
    if lasso.nonnegative:
        changes.masked_fill_(steps > steps.amin(dim=1, keepdim=True), torch.inf)
    best, index = changes.min(dim=1, keepdim=True)
    step = steps.gather(1, index)
    # The coefficient that reaches zero at this step is set to it: rounding would leave it active, with a sign.
    reached = (codes + step * direction) * ~(crossing & (steps[:, :-1] == step))
    # At the minimum rounding may let every candidate raise the energy: then nothing moves.
    return torch.where(best < 0, reached, codes)


def feature_sign(
    patches: Array,
    dictionary: Array,
    lam: float,
    *,
    tolerance: float = EXACT,
    iterations: int = 1000,
    start: Array | None = None,
    nonnegative: bool = False,
) -> Solution:
    """Minimise ½‖y - Dz‖² + λ‖z‖₁ by feature-sign search, exact up to rounding.

    The search of the paper starts from zero and moves one sign an iteration. Here it starts from the signs that some
    steps of FISTA find, and first corrects all signs at once, which is right for nearly all patches within a few
    iterations (a primal-dual active set). The patches that remain are searched as published.

    Parameters
    ----------
    patches : torch.Tensor or numpy.ndarray
        Patches y in rows, [n, d], float32 or float64, on a CPU or a GPU.
    dictionary : torch.Tensor or numpy.ndarray
        Atoms of D in columns, [d, m], of any norms, float32 or float64, on the patches' device.
    lam : float
        λ > 0, in the unit of a product of a patch and an atom.
    tolerance : float, default 1e-8
        A patch is done when its duality gap is at most `tolerance` times its objective, which is checked every
        iteration.
    iterations : int, default 1000
        Iterations at most; a patch that needs more is returned as not converged.
    start : torch.Tensor or numpy.ndarray, optional
        Codes to begin with, [n, m]; the signs are then its signs, and FISTA takes no steps. It is not changed.
    nonnegative : bool, default False
        Minimise over z ≥ 0.

    Returns
    -------
    Solution
        Codes [n, m], computed in float64, with objective, duality gap, iterations and convergence of each patch.

    Raises
    ------
    UsageError
        Shapes, types, devices or settings make no sense, or the codes do not fit into the memory.
    LearningError
        Patches, atoms or start are not finite, or too large to be squared.

    Notes
    -----
    An iteration solves for the codes once. The steps of FISTA that find the first signs are not counted.

    References
    ----------
    Lee, Battle, Raina, Ng 2006, algorithm 1; Hintermüller, Ito, Kunisch 2002 (primal-dual active set).
    """
    inputs = read_inputs(patches, dictionary, lam, start, nonnegative)
    return solve_in_blocks(FeatureSign, inputs, tolerance=tolerance, iterations=iterations, check_every=1)
