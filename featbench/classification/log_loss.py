"""The mean log-loss of a softmax, its derivatives by the scores, and the biases that are optimal for given scores.

    L(S) = -1/n Σᵢ log softmax(Sᵢ)_yᵢ,   for scores S [n, k] and labels y [n]

Rows are images, columns are classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BIAS_ITERATIONS = 100
"""Steps of Newton's method that optimise the biases, at most."""

BIAS_TOLERANCE = 1e-12
"""Largest gradient by a bias, a difference of frequencies, at which the biases count as optimal."""


@dataclass(frozen=True)
class ProfiledLoss:
    """The mean log-loss ℓ(S) = min_b L(S + b) at some scores S [n, k], and its derivatives.

    The biases are a function b(S) of the scores, so that only the weights remain to be optimised (as in a profile
    likelihood). With p = softmax(S + b), one-hot labels y, and Jᵢ = diag(pᵢ) - pᵢpᵢᵀ, the Jacobian of a row's softmax:

    bias: b(S) [k]. probabilities: p [n, k]. gradient: ∂ℓ/∂S = (p - y) / n, [n, k]; by the envelope theorem the change
    of b adds nothing. inverse_hessian: of L by the biases, (1/n Σᵢ Jᵢ)⁻¹ [k, k], on vectors that sum to 0.
    bias_converged: whether the biases are optimal.
    """

    loss: float
    bias: Tensor
    probabilities: Tensor
    gradient: Tensor
    inverse_hessian: Tensor
    bias_converged: bool

    @property
    def curvature(self) -> float:
        """Mean of p (1 - p), the diagonal of J, over rows and classes."""
        p = self.probabilities
        # Rounding can leave 0 or less where all rows are certain, and a preconditioner has to be positive.
        return max(float((p * (1 - p)).mean()), 1e-12)

    def differentiate_bias(self, direction: Tensor) -> Tensor:
        """Return the derivative of the optimal biases along a direction of the scores, [k] for [n, k]."""
        # The optimal biases satisfy g(S, b) = mean(p - y) = 0. Differentiated along V, with H = 1/n Σᵢ Jᵢ:
        # 1/n Σᵢ Jᵢ vᵢ + H b' = 0, and so b' = -H⁻¹ mean(Jᵢ vᵢ).
        p, inverse = self.probabilities.to(direction.dtype), self.inverse_hessian.to(direction.dtype)
        return -inverse @ _multiply_jacobian(p, direction).mean(dim=0)

    def multiply_hessian(self, direction: Tensor) -> Tensor:
        """Return the derivative of the gradient along a direction of the scores, [n, k]: the Hessian times it."""
        # (ℓ''V)ᵢ = Jᵢ (vᵢ + b') / n. With b' written out, ℓ'' = L_SS - L_Sb L_bb⁻¹ L_bS: the Schur complement of the
        # block of the biases, L_bb = H, in the Hessian by scores and biases.
        p = self.probabilities.to(direction.dtype)
        return _multiply_jacobian(p, direction + self.differentiate_bias(direction)) / len(p)


class LogLoss:
    """The mean log-loss of scores [n, k], for rows with labels [n] in range(count); no class is empty."""

    def __init__(self, labels: Tensor, count: int) -> None:
        self._labels, self._rows = labels, torch.arange(len(labels), device=labels.device)
        self._frequencies = torch.bincount(labels, minlength=count).double() / len(labels)

    def __call__(self, scores: Tensor) -> float:
        """Return it for scores that include the biases."""
        return self._average(torch.log_softmax(scores, dim=1))

    def optimise_bias(self, scores: Tensor, bias: Tensor) -> ProfiledLoss:
        """Find the optimal biases for scores without biases, by Newton's method that starts from `bias`."""
        for _ in range(BIAS_ITERATIONS):
            logs = torch.log_softmax(scores + bias, dim=1)
            loss, p = self._average(logs), logs.exp()
            # ∂L/∂b = mean(p) - mean(y): each class's mean probability less its frequency. The step is -H⁻¹ ∂L/∂b.
            bias_gradient = p.mean(dim=0) - self._frequencies
            inverse_hessian = _invert_bias_hessian(p)
            converged = float(bias_gradient.abs().max()) <= BIAS_TOLERANCE
            step = -inverse_hessian @ bias_gradient
            if converged or not (
                length := self._find_step_length(scores + bias, step, loss, float(-bias_gradient @ step))
            ):
                break
            bias = bias + length * step
        # ∂L/∂S = (p - y) / n.
        residual = p.clone()
        residual[self._rows, self._labels] -= 1
        return ProfiledLoss(loss, bias, p, residual / len(p), inverse_hessian, converged)

    def _average(self, log_probabilities: Tensor) -> float:
        return -float(log_probabilities[self._rows, self._labels].mean())

    def _find_step_length(self, scores: Tensor, step: Tensor, loss: float, decrease: float) -> float:
        """Halve a Newton step of the biases until the loss falls; return the part to take, 0 if none lowers the loss.

        decrease: of the loss, as the slope along the whole step predicts it.
        """
        # So close to the minimum the loss cannot tell steps apart, for rounding, and Newton's method converges anyway.
        if decrease < 1e-8 * loss:
            return 1.0
        return next((0.5**k for k in range(30) if self(scores + 0.5**k * step) < loss), 0.0)


def _invert_bias_hessian(p: Tensor) -> Tensor:
    """Return the inverse of H = 1/n Σᵢ (diag(pᵢ) - pᵢpᵢᵀ) over the rows of [n, k], on vectors that sum to 0."""
    shared = p.T @ p / len(p)
    # Rows of H sum to 0. Its diagonal is computed as minus the sum of the others in its row: as the difference of p and
    # p² it would cancel to nothing where p is near 0 or 1.
    hessian = torch.diag(shared.sum(dim=1) - shared.diag()) - (shared - torch.diag(shared.diag()))
    # H is singular along (1, …, 1): an equal shift of all biases changes no probability. A constant added to every
    # entry changes H along that vector alone, and leaves an invertible matrix of similar scale.
    inverse: Tensor = torch.linalg.pinv(hessian + hessian.diag().mean() / len(hessian), hermitian=True)
    return inverse


def _multiply_jacobian(p: Tensor, direction: Tensor) -> Tensor:
    """Return (diag(pᵢ) - pᵢpᵢᵀ) vᵢ for each row i of the probabilities and of a direction, [n, k]."""
    weighted = p * direction
    return weighted - p * weighted.sum(dim=1, keepdim=True)
