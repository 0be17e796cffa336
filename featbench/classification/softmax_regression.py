"""Multinomial logistic regression: mean log-loss and a penalty of the weights, minimised to a certified objective.

`Ridge`: λ/2 ‖w‖², by Newton's method; `softmax_lasso` has λ ‖w‖₁. Biases bear no penalty. They are always at their best
for the weights at hand, so that the gap to the dual problem, which bounds the error of the objective, costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featbench.classification.row_space import Matrix, product
from featbench.types import IntArray

TOLERANCE = 1e-9
"""Gap, relative to the objective, at which `Ridge` stops."""

ITERATIONS = 100
"""Steps of Newton's method, at most."""

PRODUCTS = 100
"""Iterations of conjugate gradients in such a step, at most."""

BALANCING = 100
"""Steps of Newton's method that find the best biases, at most."""

FORCING = 0.1
"""Part of the gradient that conjugate gradients leave of it in a step of Newton's method."""

BALANCED = 1e-12
"""Largest difference of a class's share of the rows from its mean probability, where biases are at their best."""

SLACK = 1e-12
"""Rounding of an objective, relatively: a step that raises it by no more is not refused."""


@dataclass(frozen=True)
class Solution:
    """Weights [r or d, classes] and biases [classes] for `strength`; scores of all rows, [n, classes].

    gap: how far the objective lies above the optimum at most. A class that no row belongs to has a bias of -∞.
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
class Place:
    """Weights [r, k], biases [k] and what the weights give the rows, [n, k]; or a direction, made of the same."""

    weight: Tensor
    bias: Tensor
    scores: Tensor

    def moved(self, length: float, direction: Place) -> Place:
        """Return the place some way along a direction."""
        return Place(
            self.weight + length * direction.weight,
            self.bias + length * direction.bias,
            self.scores + length * direction.scores,
        )


@dataclass(frozen=True)
class Point:
    """The mean log-loss at some scores [n, k], with the biases [k] that are best for them.

    error: [n, k], its gradient by the scores. stiffness: [k, k], the inverse of its Hessian by the biases.
    """

    loss: float
    bias: Tensor
    probabilities: Tensor
    error: Tensor
    stiffness: Tensor
    balanced: bool

    @property
    def curvature(self) -> float:
        """Mean of p (1 - p) over rows and classes."""
        p = self.probabilities
        return max(float((p * (1 - p)).mean()), 1e-12)

    def follow(self, moved: Tensor) -> Tensor:
        """Return how the best biases move with the scores, [k] for [n, k]."""
        p, stiffness = self.probabilities.to(moved.dtype), self.stiffness.to(moved.dtype)
        return -stiffness @ _bend(p, moved).mean(dim=0)

    def curve(self, moved: Tensor) -> Tensor:
        """Return how the error moves with the scores, [n, k], while the biases follow."""
        p = self.probabilities.to(moved.dtype)
        return _bend(p, moved + self.follow(moved)) / len(p)


class LogLoss:
    """The mean log-loss of scores [n, k] of rows that belong to `count` classes, none of them empty."""

    def __init__(self, labels: Tensor, count: int) -> None:
        self._labels, self._rows = labels, torch.arange(len(labels), device=labels.device)
        self._share = torch.bincount(labels, minlength=count).double() / len(labels)

    def __call__(self, scores: Tensor) -> float:
        """Return it for scores that hold the biases."""
        return self._mean(torch.log_softmax(scores, dim=1))

    def at(self, scores: Tensor, bias: Tensor) -> Point:
        """Find the best biases for scores without them, by Newton's method from some biases on."""
        for _ in range(BALANCING):
            logs = torch.log_softmax(scores + bias, dim=1)
            loss, p = self._mean(logs), logs.exp()
            pull = p.mean(dim=0) - self._share
            stiffness = _stiffness(p)
            balanced = float(pull.abs().max()) <= BALANCED
            step = -stiffness @ pull
            if balanced or not (length := self._length(scores + bias, step, loss, float(-pull @ step))):
                break
            bias = bias + length * step
        error = p.clone()
        error[self._rows, self._labels] -= 1
        return Point(loss, bias, p, error / len(p), stiffness, balanced)

    def _mean(self, logs: Tensor) -> float:
        return -float(logs[self._rows, self._labels].mean())

    def _length(self, scores: Tensor, step: Tensor, loss: float, fall: float) -> float:
        """Return how much of a step of Newton's method to take: all of it where it is too short to judge."""
        if fall < 1e-8 * loss:
            return 1.0
        return next((0.5**k for k in range(30) if self(scores + 0.5**k * step) < loss), 0.0)


class Classes:
    """The classes that the chosen rows belong to: others are left out of the problem, and never predicted."""

    def __init__(self, labels: IntArray, chosen: NDArray[np.bool_], classes: int, device: torch.device) -> None:
        self.classes, self.device = classes, device
        self.present = np.unique(labels[chosen])
        columns = torch.from_numpy(np.searchsorted(self.present, labels[chosen])).to(device)
        self.loss = LogLoss(columns, len(self.present))

    def begin(self, start: Solution | None, size: int) -> tuple[Tensor, Tensor]:
        """Return weights [size, k] and biases [k] to start from: another solution's, or zeros."""
        weight, bias = np.zeros((size, len(self.present))), np.zeros(len(self.present))
        if start is not None:
            weight, bias = start.weight[:, self.present], start.bias[self.present]
            bias = np.where(np.isfinite(bias), bias, 0)  # of a class that the other rows lacked
        return torch.from_numpy(weight).to(self.device), torch.from_numpy(bias).to(self.device)

    def solution(self, weight: Tensor, bias: Tensor, scores: Tensor, **about: Any) -> Solution:
        """Return the solution, given what the weights give all rows."""

        def spread(values: Tensor, absent: float) -> Matrix:
            everyone = np.full((len(values), self.classes), absent, dtype=np.float64)
            everyone[:, self.present] = values.cpu().numpy()
            return everyone

        return Solution(spread(weight, 0), spread(bias[None], -np.inf)[0], spread(scores + bias, -np.inf), **about)


class Ridge:
    """Minimises mean log-loss + λ/2 ‖w‖² over the chosen rows, for one strength after the other.

    rows: [n, r] on the principal axes of their space, where the penalty is the same and the curvature nearly diagonal:
    h v + λ for an axis along which rows have variance v, with h the mean of p (1 - p). Preconditioned by it, a step of
    Newton's method takes about ten iterations of conjugate gradients, in single precision; gradients and objectives
    are in double precision. With biases that follow, the objective is λ-strongly convex in w: ‖gradient‖² / 2λ, which
    is the duality gap, bounds its error.
    """

    def __init__(
        self,
        rows: Tensor,
        variance: Tensor,
        labels: IntArray,
        chosen: NDArray[np.bool_],
        classes: int,
        start: Solution | None = None,
    ) -> None:
        self._everyone, self._variance = rows, variance
        self._rows = rows if chosen.all() else rows[torch.from_numpy(chosen).to(rows.device)]
        self._single = self._rows.float()
        self._classes = Classes(labels, chosen, classes, rows.device)
        self._weight, self._bias = self._classes.begin(start, rows.shape[1])

    def solve(self, strength: float) -> Solution:
        """Return the optimum; the search starts from the last one."""
        place = Place(self._weight, self._bias, product(self._rows, self._weight))
        for iteration in range(ITERATIONS + 1):
            point = self._classes.loss.at(place.scores, place.bias)
            place = replace(place, bias=point.bias)
            gradient = product(self._rows.T, point.error) + strength * place.weight
            objective = point.loss + strength / 2 * float(place.weight.square().sum())
            gap = float(gradient.square().sum()) / (2 * strength)
            converged = gap <= TOLERANCE * objective and point.balanced
            if converged or iteration == ITERATIONS:
                break
            further = self._newton(place, point, gradient, objective, strength)
            if further is None:
                break
            place = further
        self._weight, self._bias = place.weight, place.bias
        about = {"strength": strength, "objective": objective, "gap": gap, "iterations": iteration}
        scores = product(self._everyone, place.weight)
        return self._classes.solution(place.weight, place.bias, scores, **about, converged=converged)

    def _newton(self, place: Place, point: Point, gradient: Tensor, objective: float, strength: float) -> Place | None:
        """Return the place after a step of Newton's method, or None if nothing better is to be had."""

        def curve(v: Tensor) -> Tensor:
            return product(self._single.T, point.curve(product(self._single, v))) + strength * v

        step = conjugate_gradients(curve, -gradient, point.curvature * self._variance[:, None] + strength, FORCING)
        moved = product(self._rows, step)
        direction, slope = Place(step, point.follow(moved), moved), float((gradient * step).sum())
        for length in (0.5**k for k in range(20)):
            trial = place.moved(length, direction)
            value = self._classes.loss(trial.scores + trial.bias) + strength / 2 * float(trial.weight.square().sum())
            if value <= objective * (1 + SLACK) + 1e-4 * length * slope:
                return trial
        return None


def conjugate_gradients(curve: Callable[[Tensor], Tensor], target: Tensor, scale: Tensor, forcing: float) -> Tensor:
    """Solve curve(x) = target, [r, k], but for a part of the target, in single precision.

    scale: about the diagonal of the curve. After `PRODUCTS` iterations what was found by then is returned.
    """
    size = float(target.norm())
    left, scale = (target / size).float(), scale.float()
    x = torch.zeros_like(left)
    along = left / scale
    steep = float((left * along).sum())
    for _ in range(PRODUCTS):
        bent = curve(along)
        curvature = float((along * bent).sum())
        if not curvature > 0:  # rounding
            break
        x += steep / curvature * along
        left -= steep / curvature * bent
        if float(left.norm()) <= forcing:
            break
        scaled = left / scale
        before, steep = steep, float((left * scaled).sum())
        along = scaled + steep / before * along
    return x.double() * size


def _stiffness(p: Tensor) -> Tensor:
    """Return the inverse of mean(diag(p) - p pᵀ) over the rows of [n, k], for what sums to 0 over classes."""
    shared = p.T @ p / len(p)
    # The diagonal is what makes rows sum to 0: as the difference of p and p² nothing would be left of it near 0 and 1.
    hessian = torch.diag(shared.sum(dim=1) - shared.diag()) - (shared - torch.diag(shared.diag()))
    inverse: Tensor = torch.linalg.pinv(hessian + hessian.diag().mean() / len(hessian), hermitian=True)
    return inverse


def _bend(p: Tensor, moved: Tensor) -> Tensor:
    """Return (diag(p) - p pᵀ) moved for each row of [n, k]."""
    bent = p * moved
    return bent - p * bent.sum(dim=1, keepdim=True)
