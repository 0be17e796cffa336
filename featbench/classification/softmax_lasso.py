"""Multinomial logistic regression with few weights: mean log-loss + λ ‖w‖₁, minimised to a certified objective."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featbench.classification.row_space import Standardiser, column_blocks, product
from featbench.classification.softmax_regression import SLACK, Classes, Place, Point, Solution, conjugate_gradients
from featbench.types import FloatArray, IntArray

TOLERANCE = 1e-7
"""Gap, relative to the objective, at which `Lasso` stops; it falls with the gradient, not with its square."""

ITERATIONS = 500
"""Proximal steps on one working set, at most; each comes with a step of Newton's method."""

FORCING = 0.01
"""Part of the gradient that conjugate gradients leave of it in such a step. Where they leave more, small weights take
turns in being zero and not."""

ENTERING = 256
"""Features that enter the working set together, or as many as it has, if those are more."""


class Lasso:
    """Minimises mean log-loss + λ ‖w‖₁ over the chosen rows of features [t, d], for one strength after the other.

    On a working set of features: proximal gradient steps, which find the weights that are not zero, each followed by
    a step of Newton's method among these. Features enter where the gradient exceeds λ; all are looked at after each
    round, some columns at a time, until the duality gap over all of them is small.
    """

    def __init__(
        self,
        features: FloatArray,
        standardise: Standardiser,
        labels: IntArray,
        chosen: NDArray[np.bool_],
        classes: int,
        start: Solution | None = None,
        device: str = "cpu",
    ) -> None:
        self._features, self._standardise, self._chosen = features, standardise, chosen
        self._classes = Classes(labels, chosen, classes, torch.device(device))
        self._weight, self._bias = self._classes.begin(start, features.shape[1])
        self._bound = 1e-2  # of the curvature; raised where it turns out too small

    def strongest(self) -> float:
        """Return the least strength at which all weights are zero."""
        scores = torch.zeros((int(self._chosen.sum()), len(self._bias)), dtype=torch.float64, device=self._bias.device)
        return float(self._gradient(self._classes.loss.at(scores, self._bias).error).abs().max())

    def solve(self, strength: float) -> Solution:
        """Return the optimum; the search starts from the last one."""
        used, iterations = self._weight.any(dim=1).nonzero().flatten(), 0
        while True:
            everyone = self._columns(used)
            iterations += self._descend(everyone[torch.from_numpy(self._chosen)], used, strength)
            scores = product(everyone, self._weight[used])
            point = self._classes.loss.at(scores[torch.from_numpy(self._chosen)], self._bias)
            gradient = self._gradient(point.error)
            objective = _objective(point.loss, self._weight, strength)
            gap = _gap(point, self._weight, gradient, strength)
            converged = gap <= TOLERANCE * objective and point.balanced
            steepest = gradient.abs().amax(dim=1)
            steepest[used] = 0
            fresh = min(int((steepest > strength).sum()), max(len(used), ENTERING))
            if converged or not fresh:
                break
            used = torch.cat([used, steepest.topk(fresh).indices])
        about = {"strength": strength, "objective": objective, "gap": gap, "iterations": iterations}
        return self._classes.solution(self._weight, point.bias, scores, **about, converged=converged)

    def _descend(self, x: Tensor, used: Tensor, strength: float) -> int:
        """Find the optimum on a working set x [n, m]; returns how many steps it took."""
        weight = self._weight[used]
        place = Place(weight, self._bias, product(x, weight))
        for iteration in range(ITERATIONS + 1):
            point = self._classes.loss.at(place.scores, place.bias)
            gradient = product(x.T, point.error)
            objective = _objective(point.loss, place.weight, strength)
            if _gap(point, place.weight, gradient, strength) <= TOLERANCE / 2 * objective or iteration == ITERATIONS:
                break
            place = self._newton(x, self._shrink(x, place, point, gradient, strength), strength)
        self._weight[used], self._bias = place.weight, point.bias
        return iteration

    def _shrink(self, x: Tensor, place: Place, point: Point, gradient: Tensor, strength: float) -> Place:
        """Return the place after a proximal step."""
        self._bound /= 2
        while True:
            moved = place.weight - gradient / self._bound
            weight = moved.sign() * (moved.abs() - strength / self._bound).clamp_min(0)
            step = weight - place.weight
            scores = place.scores + product(x, step)
            bound = float((gradient * step).sum()) + self._bound / 2 * float(step.square().sum())
            # Where rounding decides, the bound need not grow beyond what holds for every loss of this kind.
            if self._bound > 1 or self._classes.loss(scores + point.bias) <= point.loss * (1 + SLACK) + bound:
                # Moving all weights of a feature alike moves no probability: the penalty is least about their median.
                return Place(weight - weight.median(dim=1, keepdim=True).values, point.bias, scores)
            self._bound *= 2

    def _newton(self, x: Tensor, place: Place, strength: float) -> Place:
        """Return the place after a step among the weights that are not zero; one that would change its sign is 0."""
        signs = place.weight.sign()
        if not bool(signs.any()):
            return place
        point, free, single = self._classes.loss.at(place.scores, place.bias), signs.abs().float(), x.float()
        gradient = (product(x.T, point.error) + strength * signs) * signs.abs()

        def curve(v: Tensor) -> Tensor:
            return product(single.T, point.curve(product(single, v))) * free

        step = conjugate_gradients(curve, -gradient, torch.ones_like(gradient), FORCING)
        objective = _objective(point.loss, place.weight, strength)
        for length in (0.5**k for k in range(8)):
            weight = place.weight + length * step
            weight[weight.sign() != signs] = 0
            scores = product(x, weight)
            bias = point.bias + point.follow(scores - place.scores)
            if _objective(self._classes.loss(scores + bias), weight, strength) < objective:
                return Place(weight, bias, scores)
        return place

    def _columns(self, columns: Tensor) -> Tensor:
        x = self._standardise.apply(self._features, columns.cpu().numpy())
        return torch.from_numpy(x).to(self._bias.device)

    def _gradient(self, error: Tensor) -> Tensor:
        """Return the gradient by all weights, [d, k]."""
        blocks = []
        for here in column_blocks(self._features.shape[1]):
            x = self._standardise.apply(self._features, here)
            x = x if self._chosen.all() else x[self._chosen]
            blocks.append(product(torch.from_numpy(x).to(error.device).T, error))
        return torch.cat(blocks)


def _objective(loss: float, weight: Tensor, strength: float) -> float:
    return loss + strength * float(weight.abs().sum())


def _gap(point: Point, weight: Tensor, gradient: Tensor, strength: float) -> float:
    """Return the objective minus that of the dual problem.

    Its variables are distributions q over classes, one for each row: the mean entropy is to be largest where no feature
    has a product with q - y larger than λ. Those at hand, p, moved towards the labels y until this holds, are such.
    """
    worst = float(gradient.abs().max()) if gradient.numel() else 0.0
    excess = 1 - strength / worst if worst > strength else 0.0
    q = (point.probabilities - excess * len(point.error) * point.error).clamp_min(0)
    entropy = -float(torch.xlogy(q, q).sum(dim=1).mean())
    return _objective(point.loss, weight, strength) - entropy
