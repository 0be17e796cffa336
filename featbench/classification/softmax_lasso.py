"""Multinomial logistic regression with few weights: mean log-loss + λ ‖W‖₁, minimised to a certified objective.

Sources: Beck and Teboulle 2009 (proximal gradient steps with backtracking); Andrew and Gao 2007 (steps that leave no
orthant); Boyd and Vandenberghe, Convex Optimization (2004), chapter 5 (duality gap).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featbench.classification.log_loss import ProfiledLoss
from featbench.classification.row_space import Standardiser, multiply, split_columns
from featbench.classification.softmax_regression import (
    SLACK,
    Iterate,
    LogisticSolution,
    PresentClasses,
    conjugate_gradients,
)
from featbench.types import FloatArray, IntArray

TOLERANCE = 1e-7
"""Duality gap, relative to the objective, at which `SoftmaxLasso` stops: larger than that of `SoftmaxRidge`, as this
gap is proportional to the remaining gradient, not to its square."""

ITERATIONS = 500
"""Proximal steps on one working set, at most; a step of Newton's method follows each."""

FORCING = 0.01
"""Forcing term of these steps: the residual of the Newton equation, relative to the gradient, at which conjugate
gradients stop. With a larger one small weights alternate between zero and other values."""

WORKING_SET_GROWTH = 256
"""Features that enter the working set at a time: as many as this, or as it has already if those are more."""


class SoftmaxLasso:
    """Minimises mean log-loss + λ ‖W‖₁ over the chosen rows of features [t, d], for one strength λ after the other.

    It works on a working set of features. There proximal gradient steps find the weights that are not zero, and after
    each a step of Newton's method improves these. Features whose gradient exceeds λ enter the working set. After each
    round all features are examined, some columns at a time, until the duality gap over all of them is small.

    start: another solution, to start from. device: where scores and gradients are computed.
    """

    def __init__(
        self,
        features: FloatArray,
        standardiser: Standardiser,
        labels: IntArray,
        chosen: NDArray[np.bool_],
        classes: int,
        start: LogisticSolution | None = None,
        device: str = "cpu",
    ) -> None:
        self._features, self._standardiser, self._chosen = features, standardiser, chosen
        self._classes = PresentClasses(labels, chosen, classes, torch.device(device))
        self._weight, self._bias = self._classes.make_start(start, features.shape[1])
        # An estimate of the Lipschitz constant of the gradient, whose inverse is the length of a proximal step. Small
        # at first, as backtracking doubles it wherever the loss curves more.
        self._lipschitz = 1e-2

    def find_largest_strength(self) -> float:
        """Return the smallest strength at which all weights are zero."""
        # W = 0 is optimal where -∂ℓ/∂W lies in λ ∂‖0‖₁, the entries between -λ and λ: at max |∂ℓ/∂W| and above.
        scores = torch.zeros((int(self._chosen.sum()), len(self._bias)), dtype=torch.float64, device=self._bias.device)
        return float(self._compute_gradient(self._classes.loss.optimise_bias(scores, self._bias).gradient).abs().max())

    def solve(self, strength: float) -> LogisticSolution:
        """Minimise for one strength; the search starts from the solution of the last one."""
        working_set, iterations = self._weight.any(dim=1).nonzero().flatten(), 0
        while True:
            x = self._standardise_columns(working_set)
            iterations += self._optimise(x[torch.from_numpy(self._chosen)], working_set, strength)
            scores = multiply(x, self._weight[working_set])
            profiled = self._classes.loss.optimise_bias(scores[torch.from_numpy(self._chosen)], self._bias)
            gradient = self._compute_gradient(profiled.gradient)
            objective = _compute_objective(profiled.loss, self._weight, strength)
            gap = _compute_gap(profiled, self._weight, gradient, strength)
            converged = gap <= TOLERANCE * objective and profiled.bias_converged
            # A feature outside the working set has the weight 0, which is optimal as long as |∂ℓ/∂w| ≤ λ.
            largest = gradient.abs().amax(dim=1)
            largest[working_set] = 0
            entering = min(int((largest > strength).sum()), max(len(working_set), WORKING_SET_GROWTH))
            if converged or not entering:
                break
            working_set = torch.cat([working_set, largest.topk(entering).indices])
        about = {"strength": strength, "objective": objective, "gap": gap, "iterations": iterations}
        return self._classes.make_solution(self._weight, profiled.bias, scores, **about, converged=converged)

    def _optimise(self, x: Tensor, working_set: Tensor, strength: float) -> int:
        """Find the optimum for the columns x [n, m] of a working set; return how many steps that took."""
        weight = self._weight[working_set]
        iterate = Iterate(weight, self._bias, multiply(x, weight))
        for iteration in range(ITERATIONS + 1):
            profiled = self._classes.loss.optimise_bias(iterate.scores, iterate.bias)
            gradient = multiply(x.T, profiled.gradient)
            objective = _compute_objective(profiled.loss, iterate.weight, strength)
            gap = _compute_gap(profiled, iterate.weight, gradient, strength)
            # Half of the tolerance: the gap over all features is larger than that over the working set.
            if gap <= TOLERANCE / 2 * objective or iteration == ITERATIONS:
                break
            shrunk = self._take_proximal_step(x, iterate, profiled, gradient, strength)
            iterate = self._take_newton_step(x, shrunk, strength)
        self._weight[working_set], self._bias = iterate.weight, profiled.bias
        return iteration

    def _take_proximal_step(
        self, x: Tensor, iterate: Iterate, profiled: ProfiledLoss, gradient: Tensor, strength: float
    ) -> Iterate:
        """Return the iterate after a proximal gradient step, of a length that backtracking finds."""
        # Halved first, so that one region of high curvature does not shorten all later steps.
        self._lipschitz /= 2
        while True:
            # prox(V) = sign(V) max(|V| - λ/B, 0) at V = W - ∂ℓ/∂W / B minimises the quadratic model of the objective,
            # ℓ + ⟨∂ℓ/∂W, D⟩ + B/2 ‖D‖² + λ ‖W + D‖₁, over steps D.
            target = iterate.weight - gradient / self._lipschitz
            weight = target.sign() * (target.abs() - strength / self._lipschitz).clamp_min(0)
            step = weight - iterate.weight
            scores = iterate.scores + multiply(x, step)
            model = float((gradient * step).sum()) + self._lipschitz / 2 * float(step.square().sum())
            # The step is accepted where the model bounds the loss from above. The Hessian by W is at most ½ mean ‖xᵢ‖²,
            # and rows have a mean squared norm of about 1: with B > 1 only rounding can say otherwise.
            loss = self._classes.loss
            if self._lipschitz > 1 or loss(scores + profiled.bias) <= profiled.loss * (1 + SLACK) + model:
                # An equal shift of a feature's weights to all classes shifts all scores of a row alike. That changes
                # no probability, so the scores need not follow, but the penalty is smallest about the median.
                return Iterate(weight - weight.median(dim=1, keepdim=True).values, profiled.bias, scores)
            self._lipschitz *= 2

    def _take_newton_step(self, x: Tensor, iterate: Iterate, strength: float) -> Iterate:
        """Return the iterate after a Newton step among the weights that are not zero, or the same if none helps."""
        # Where no weight changes its sign, ‖W‖₁ = ⟨sign W, W⟩ is linear, and the objective smooth.
        signs = iterate.weight.sign()
        if not bool(signs.any()):
            return iterate
        profiled = self._classes.loss.optimise_bias(iterate.scores, iterate.bias)
        free, single = signs.abs().float(), x.float()
        gradient = (multiply(x.T, profiled.gradient) + strength * signs) * signs.abs()

        def multiply_hessian(v: Tensor) -> Tensor:
            # ∇²F V = Xᵀ ℓ''(X V), the rows and columns of weights that are zero left out.
            return multiply(single.T, profiled.multiply_hessian(multiply(single, v))) * free

        step = conjugate_gradients(multiply_hessian, -gradient, torch.ones_like(gradient), FORCING)
        objective = _compute_objective(profiled.loss, iterate.weight, strength)
        for length in (0.5**k for k in range(8)):
            weight = iterate.weight + length * step
            # Beyond zero the linear penalty no longer holds: a weight that would change its sign stops there.
            weight[weight.sign() != signs] = 0
            scores = multiply(x, weight)
            bias = profiled.bias + profiled.differentiate_bias(scores - iterate.scores)
            if _compute_objective(self._classes.loss(scores + bias), weight, strength) < objective:
                return Iterate(weight, bias, scores)
        return iterate

    def _standardise_columns(self, columns: Tensor) -> Tensor:
        x = self._standardiser.apply(self._features, columns.cpu().numpy())
        return torch.from_numpy(x).to(self._bias.device)

    def _compute_gradient(self, score_gradient: Tensor) -> Tensor:
        """Return the gradient of the loss by all weights, Xᵀ ∂ℓ/∂S [d, k], some columns of X at a time."""
        blocks = []
        for columns in split_columns(self._features.shape[1]):
            x = self._standardiser.apply(self._features, columns)
            x = x if self._chosen.all() else x[self._chosen]
            blocks.append(multiply(torch.from_numpy(x).to(score_gradient.device).T, score_gradient))
        return torch.cat(blocks)


def _compute_objective(loss: float, weight: Tensor, strength: float) -> float:
    return loss + strength * float(weight.abs().sum())


def _compute_gap(profiled: ProfiledLoss, weight: Tensor, gradient: Tensor, strength: float) -> float:
    """Return the duality gap: the objective minus the dual objective of a feasible point.

    gradient: ∂ℓ/∂W, of the features that the gap is to cover.
    """
    # The dual problem has a distribution qᵢ over classes for each row:
    #     maximise -1/n Σᵢ ⟨qᵢ, log qᵢ⟩   where   |Xᵀ (q - y)| / n ≤ λ,   Σᵢ (qᵢ - yᵢ) = 0.
    # At q = p the gradient ∂ℓ/∂W is what the first condition bounds, and the second holds for optimal biases. Moved
    # towards the labels, q = p - e (p - y) scales it by 1 - e: with 1 - e = λ / max |∂ℓ/∂W|, q is feasible.
    worst = float(gradient.abs().max()) if gradient.numel() else 0.0
    excess = 1 - strength / worst if worst > strength else 0.0
    q = (profiled.probabilities - excess * len(profiled.gradient) * profiled.gradient).clamp_min(0)
    entropy = -float(torch.xlogy(q, q).sum(dim=1).mean())
    return _compute_objective(profiled.loss, weight, strength) - entropy
