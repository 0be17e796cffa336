"""Feature-sign search: the exact active-set solver."""

from __future__ import annotations

import torch
from torch import Tensor

from featbench.sparse.active_set import ActiveSet, active_sets
from featbench.sparse.descent import Descent, descend
from featbench.sparse.fista import Fista
from featbench.sparse.inputs import Array, read_inputs
from featbench.sparse.problem import Lasso, Point
from featbench.sparse.solution import Solution

EXACT = 1e-8
"""Largest duality gap, as a part of the objective: solving once more costs so little that it is asked to be tiny."""

JUMPS = 10
"""Iterations that guess all signs at once before the search goes on, for the few patches left, one sign at a time."""

SETTLED = 1.2
"""Signs of a patch that change, on average, in five steps of the first FISTA: so few that it may stop."""

BURSTS = 60
"""Five steps each: how long FISTA looks for signs at most."""

STRETCH = 1.3
"""Length of those steps, as a multiple of 1/L. More than FISTA's proof allows; up to 4/3 no direction grows, and a
guess of signs is all that is wanted."""

STATIONARY = 1e-7
"""Largest gradient of the energy on the active set, as a part of λ, where the quadratic problem counts as solved."""


class FeatureSign(Descent):
    """Guesses which coefficients are not zero, with which signs θ, and solves for them: G_A z_A = (Dᵀy)_A - λθ_A."""

    state = (*Descent.state, "correlations", "signs")

    def __init__(self, lasso: Lasso, patches: Tensor, start: Tensor | None) -> None:
        super().__init__(lasso, patches, start)
        self.correlations = patches @ lasso.dictionary
        self.signs = self.codes.sign()
        self.guessed = start is not None
        self.taken = 0

    def advance(self, point: Point, steps: int) -> None:
        """Take some iterations; only the first knows its point, so that there is one between two looks at the gap."""
        assert steps == 1
        if self.taken < JUMPS:
            self._jump(point)
        else:
            self._search(point)
        self.taken += 1

    def _jump(self, point: Point) -> None:
        """Solve for the codes of the guessed signs; where they come out otherwise, the next guess is corrected.

        An entry with the wrong sign leaves the active set; a zero with |gradient| > λ enters it.
        """
        if self.guessed:
            entering = -point.gradient.sign() * (self.lasso.violation(point.gradient) > self.lasso.lam)
            staying = self.signs * (self.codes * self.signs > 0)
            self.signs = torch.where(self.signs != 0, staying, entering)
        else:
            self.signs, self.guessed = self._first_signs(), True
        right = self.correlations - self.lasso.lam * self.signs
        self.codes = torch.zeros_like(self.codes)
        for active in active_sets(self.lasso.gram, self.signs != 0):
            active.put(self.codes, active.solve(active.take(right)))
        if self.taken == JUMPS - 1:
            self.codes = self.codes * (self.codes * self.signs > 0)

    def _first_signs(self) -> Tensor:
        """Return the signs that some FISTA finds; float32 will do, since they are a guess."""
        descent = Fista(self.lasso.single(), self.patches.float(), None)
        descent.stretch = STRETCH
        signs = descent.codes.sign()
        for _ in range(BURSTS):
            descent.accelerate(5)
            before, signs = signs, descent.codes.sign()
            if int((signs != before).sum()) <= SETTLED * len(signs):
                break
        return torch.nan_to_num(signs).to(self.codes.dtype)

    def _search(self, point: Point) -> None:
        """Take one step of the published search: activate one coefficient if it is time, solve, search along the line.

        That lowers the energy strictly, so no pair of active set and signs comes twice and the search ends.
        """
        lam, signs = self.lasso.lam, self.codes.sign()
        slope = point.gradient + lam * signs
        stationary = (slope * signs).abs().amax(dim=1, keepdim=True) <= STATIONARY * lam
        violation = self.lasso.violation(point.gradient).masked_fill_(signs != 0, 0)
        largest, worst = violation.max(dim=1, keepdim=True)
        entering = stationary & (largest > lam)
        signs.scatter_add_(1, worst, torch.where(entering, -point.gradient.gather(1, worst).sign(), 0))
        slope = point.gradient + lam * signs
        codes = self.codes.clone()
        for active in active_sets(self.lasso.gram, signs != 0):
            before = active.take(self.codes)
            direction = -active.solve(active.take(slope))
            found = _line_search(active, before, direction, active.take(point.gradient), self.lasso)
            active.put(codes, found)
        self.codes = codes


def _line_search(active: ActiveSet, codes: Tensor, direction: Tensor, gradient: Tensor, lasso: Lasso) -> Tensor:
    """Return the best of codes + t direction [r, k] over t = 1 and those t < 1 where a coefficient reaches zero.

    Where z ≥ 0 is asked for, the search ends with the first of them.
    """
    crossing = codes * (codes + direction) < 0
    times = torch.where(crossing, -codes / torch.where(crossing, direction, 1), 1)
    times = torch.cat([times, torch.ones_like(times[:, :1])], dim=1)
    slope = (gradient * direction).sum(dim=1, keepdim=True)
    curvature = (direction * torch.bmm(active.gram, direction.unsqueeze(2)).squeeze(2)).sum(dim=1, keepdim=True)
    lengths = torch.addcmul(codes.unsqueeze(1), times.unsqueeze(2), direction.unsqueeze(1)).abs_().sum(dim=2)
    lengthening = lengths - codes.abs().sum(dim=1, keepdim=True)
    energy = times * slope + 0.5 * times.square() * curvature + lasso.lam * lengthening
    if lasso.nonnegative:
        energy.masked_fill_(times > times.amin(dim=1, keepdim=True), torch.inf)
    best, which = energy.min(dim=1, keepdim=True)
    time = times.gather(1, which)
    reached = (codes + time * direction) * ~(crossing & (times[:, :-1] == time))
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
    iterations (the primal-dual active set of Hintermüller, Ito, Kunisch 2002); what is left is searched as published.
    An iteration solves for the codes once; the steps of FISTA are not counted. With `start` there are none.

    patches [n, d], dictionary [d, m]: float32 or float64, tensors or arrays; start: codes [n, m] to begin with;
    nonnegative: z ≥ 0. A patch is done when its duality gap is at most tolerance · objective. Computed in float64.
    Source: Lee, Battle, Raina, Ng 2006, algorithm 1. Raises UsageError or LearningError for input that cannot be coded.
    """
    inputs = read_inputs(patches, dictionary, lam, start, nonnegative)
    return descend(FeatureSign, inputs, tolerance=tolerance, iterations=iterations, every=1)
