"""Multinomial logistic regression: mean log-loss and a penalty of the weights, minimised to a certified objective.

    minimise over W [r, k] and b [k]:   L(X W + b) + R(W),   with L the mean log-loss (`log_loss`)

`SoftmaxRidge` has R = λ/2 ‖W‖², by Newton's method; `softmax_lasso` has R = λ ‖W‖₁. Biases are not penalised. For all
weights that the solvers visit, the biases are optimal, which makes the duality gap cheap: the gap bounds how far the
objective lies above its minimum.

Sources: Nocedal and Wright, Numerical Optimization (2006), algorithm 7.1 (line search Newton-CG) and section 3.1
(Armijo); Boyd and Vandenberghe, Convex Optimization (2004), section 9.1.2 (strong convexity).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featbench.classification.log_loss import LogLoss, ProfiledLoss
from featbench.classification.row_space import Matrix, multiply
from featbench.types import IntArray

TOLERANCE = 1e-9
"""Duality gap, relative to the objective, at which `SoftmaxRidge` stops."""

ITERATIONS = 100
"""Steps of Newton's method, at most."""

CG_ITERATIONS = 100
"""Iterations of conjugate gradients in a step of Newton's method, at most."""

FORCING = 0.1
"""Forcing term: the residual of the Newton equation, relative to the gradient, at which conjugate gradients stop."""

ARMIJO = 1e-4
"""Part of the decrease that the slope promises which a step must achieve."""

SLACK = 1e-12
"""Rounding error of an objective, relative to it: a step that raises the objective by no more is accepted."""


@dataclass(frozen=True)
class LogisticSolution:
    """Weights [r or d, classes] and biases [classes] for `strength`; scores of all rows, [n, classes].

    gap: the objective lies at most this far above its minimum. A class that no row belongs to has a bias of -∞.
    """

    weight: Matrix
    bias: Matrix
    scores: Matrix
    strength: float
    objective: float
    gap: float
    iterations: int
    converged: bool


@dataclass(frozen=True)
class Iterate:
    """Weights W [r, k], biases [k] and the scores X W [n, k] without biases; or a search direction, made of the same.

    The scores are linear in the weights: carried along, a line search needs no product with the rows.
    """

    weight: Tensor
    bias: Tensor
    scores: Tensor

    def move(self, length: float, direction: Iterate) -> Iterate:
        """Return the iterate after a step of some length along a direction."""
        return Iterate(
            self.weight + length * direction.weight,
            self.bias + length * direction.bias,
            self.scores + length * direction.scores,
        )


class PresentClasses:
    """The classes that the chosen rows belong to, and the loss of these rows.

    Classes without rows are left out of the problem: their optimal bias would be -∞. They are never predicted.
    """

    def __init__(self, labels: IntArray, chosen: NDArray[np.bool_], classes: int, device: torch.device) -> None:
        self.classes, self.device = classes, device
        self.present = np.unique(labels[chosen])
        columns = torch.from_numpy(np.searchsorted(self.present, labels[chosen])).to(device)
        self.loss = LogLoss(columns, len(self.present))

    def make_start(self, start: LogisticSolution | None, size: int) -> tuple[Tensor, Tensor]:
        """Return weights [size, k] and biases [k] to start from: those of another solution, or zeros."""
        weight, bias = np.zeros((size, len(self.present))), np.zeros(len(self.present))
        if start is not None:
            weight, bias = start.weight[:, self.present], start.bias[self.present]
            bias = np.where(np.isfinite(bias), bias, 0)  # -∞ for a class that the rows of the start lacked
        return torch.from_numpy(weight).to(self.device), torch.from_numpy(bias).to(self.device)

    def make_solution(self, weight: Tensor, bias: Tensor, scores: Tensor, **about: Any) -> LogisticSolution:
        """Return the solution for all classes; scores: of all rows, without biases; about: the other fields."""

        def spread(values: Tensor, absent: float) -> Matrix:
            everyone = np.full((len(values), self.classes), absent, dtype=np.float64)
            everyone[:, self.present] = values.cpu().numpy()
            return everyone

        return LogisticSolution(
            spread(weight, 0), spread(bias[None], -np.inf)[0], spread(scores + bias, -np.inf), **about
        )


class SoftmaxRidge:
    """Minimises mean log-loss + λ/2 ‖W‖² over the chosen rows, for one strength λ after the other.

    rows: [n, r], on the principal axes of their space, where the penalty is the same and the Hessian nearly diagonal.
    variance: mean square of the rows along each axis, [r]. start: another solution, to start from.

    The Newton equation is solved by conjugate gradients in single precision, which takes about ten iterations with a
    diagonal preconditioner: h v + λ for an axis of variance v, with h the mean of p (1 - p). Gradients and objectives
    are in double precision.
    """

    def __init__(
        self,
        rows: Tensor,
        variance: Tensor,
        labels: IntArray,
        chosen: NDArray[np.bool_],
        classes: int,
        start: LogisticSolution | None = None,
    ) -> None:
        self._everyone, self._variance = rows, variance
        self._rows = rows if chosen.all() else rows[torch.from_numpy(chosen).to(rows.device)]
        # Products with the rows are what a step costs, and take half the time in single precision. Its rounding is far
        # below the forcing term.
        self._single = self._rows.float()
        self._classes = PresentClasses(labels, chosen, classes, rows.device)
        self._weight, self._bias = self._classes.make_start(start, rows.shape[1])

    def solve(self, strength: float) -> LogisticSolution:
        """Minimise for one strength; the search starts from the solution of the last one."""
        iterate = Iterate(self._weight, self._bias, multiply(self._rows, self._weight))
        for iteration in range(ITERATIONS + 1):
            profiled = self._classes.loss.optimise_bias(iterate.scores, iterate.bias)
            iterate = replace(iterate, bias=profiled.bias)
            # F(W) = ℓ(X W) + λ/2 ‖W‖² has the gradient Xᵀ ∂ℓ/∂S + λ W.
            gradient = multiply(self._rows.T, profiled.gradient) + strength * iterate.weight
            objective = profiled.loss + strength / 2 * float(iterate.weight.square().sum())
            # ℓ is convex, so that F is λ-strongly convex: F(W) - F(W*) ≤ ‖∇F(W)‖² / 2λ. This is also the duality gap to
            # the dual variables p - y, which are feasible because the optimal biases make them sum to 0 over the rows.
            gap = float(gradient.square().sum()) / (2 * strength)
            converged = gap <= TOLERANCE * objective and profiled.bias_converged
            if converged or iteration == ITERATIONS:
                break
            following = self._take_newton_step(iterate, profiled, gradient, objective, strength)
            if following is None:
                break
            iterate = following
        self._weight, self._bias = iterate.weight, iterate.bias
        about = {"strength": strength, "objective": objective, "gap": gap, "iterations": iteration}
        scores = multiply(self._everyone, iterate.weight)
        return self._classes.make_solution(iterate.weight, iterate.bias, scores, **about, converged=converged)

    def _take_newton_step(
        self, iterate: Iterate, profiled: ProfiledLoss, gradient: Tensor, objective: float, strength: float
    ) -> Iterate | None:
        """Return the iterate after a step of Newton's method, or None if no step length lowers the objective."""

        def multiply_hessian(v: Tensor) -> Tensor:
            # ∇²F V = Xᵀ ℓ''(X V) + λ V.
            return multiply(self._single.T, profiled.multiply_hessian(multiply(self._single, v))) + strength * v

        diagonal = profiled.curvature * self._variance[:, None] + strength
        step = conjugate_gradients(multiply_hessian, -gradient, diagonal, FORCING)
        score_step = multiply(self._rows, step)
        # The biases move along their tangent: close to optimal, they save `optimise_bias` most of its work.
        direction = Iterate(step, profiled.differentiate_bias(score_step), score_step)
        slope = float((gradient * step).sum())
        for length in (0.5**k for k in range(20)):
            trial = iterate.move(length, direction)
            value = self._classes.loss(trial.scores + trial.bias) + strength / 2 * float(trial.weight.square().sum())
            # Armijo's condition, F(W + tD) ≤ F(W) + c t ⟨∇F, D⟩. The slack lets the last steps through, whose decrease
            # is smaller than the rounding of F.
            if value <= objective * (1 + SLACK) + ARMIJO * length * slope:
                return trial
        return None


def conjugate_gradients(
    multiply_hessian: Callable[[Tensor], Tensor], target: Tensor, diagonal: Tensor, forcing: float
) -> Tensor:
    """Solve H x = b for b = target [r, k], in single precision, until ‖b - H x‖ ≤ forcing ‖b‖.

    multiply_hessian: v -> H v, for float32 [r, k]. diagonal: about that of H, the preconditioner M; [r, k] or [r, 1].
    After `CG_ITERATIONS` iterations the last x is returned. Source: Nocedal and Wright 2006, algorithm 5.3.
    """
    # Scaled to a target of norm 1, so that squares of small gradients do not vanish in single precision.
    norm = float(target.norm())
    residual, diagonal = (target / norm).float(), diagonal.float()
    x = torch.zeros_like(residual)
    direction = residual / diagonal
    # Residual r, z = M⁻¹ r, direction d, and ρ = ⟨r, z⟩: α = ρ / ⟨d, H d⟩, x += α d, r -= α H d, d = z + (ρ / ρ_old) d.
    rho = float((residual * direction).sum())
    for _ in range(CG_ITERATIONS):
        image = multiply_hessian(direction)
        curvature = float((direction * image).sum())
        if not curvature > 0:  # by rounding, as H is positive definite; or NaN, for a target of 0
            break
        x += rho / curvature * direction
        residual -= rho / curvature * image
        if float(residual.norm()) <= forcing:
            break
        preconditioned = residual / diagonal
        previous, rho = rho, float((residual * preconditioned).sum())
        direction = preconditioned + rho / previous * direction
    return x.double() * norm
