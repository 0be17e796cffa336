"""The log-loss and its derivatives, against a general solver and against differences."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from featbench.classification.log_loss import LogLoss


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_biases_are_optimal(scale):
    generator = torch.Generator().manual_seed(0)
    scores = scale * torch.randn((50, 3), generator=generator, dtype=torch.float64)
    labels = torch.arange(50) % 3
    loss = LogLoss(labels, 3)
    profiled = loss.optimise_bias(scores, torch.zeros(3, dtype=torch.float64))
    reference = minimize(
        lambda bias: loss(scores + torch.from_numpy(bias)), np.zeros(3), method="Nelder-Mead", options={"fatol": 1e-12}
    )
    assert profiled.bias_converged
    assert profiled.loss <= reference.fun + 1e-12
    assert profiled.loss == pytest.approx(loss(scores + profiled.bias))
    assert profiled.gradient.sum(dim=0).abs().max() < 1e-11


def test_the_hessian_is_the_derivative_of_the_gradient():
    generator = torch.Generator().manual_seed(1)
    scores, direction = (torch.randn((40, 4), generator=generator, dtype=torch.float64) for _ in range(2))
    loss = LogLoss(torch.arange(40) % 4, 4)
    profiled, step = loss.optimise_bias(scores, torch.zeros(4, dtype=torch.float64)), 1e-5
    ahead, behind = (loss.optimise_bias(scores + sign * step * direction, profiled.bias) for sign in (1, -1))
    differences = (ahead.gradient - behind.gradient) / (2 * step)
    torch.testing.assert_close(profiled.multiply_hessian(direction), differences, rtol=1e-6, atol=1e-9)
    # An equal shift of all biases changes nothing, and is not compared.
    biases = (ahead.bias - behind.bias) / (2 * step)
    tangent = profiled.differentiate_bias(direction)
    torch.testing.assert_close(tangent, biases - biases.mean() + tangent.mean(), atol=1e-6, rtol=0)


def test_the_gradient_is_the_derivative_of_the_profiled_loss():
    generator = torch.Generator().manual_seed(2)
    scores, direction = (torch.randn((40, 4), generator=generator, dtype=torch.float64) for _ in range(2))
    loss, step = LogLoss(torch.arange(40) % 4, 4), 1e-5
    profiled = loss.optimise_bias(scores, torch.zeros(4, dtype=torch.float64))
    ahead, behind = (loss.optimise_bias(scores + sign * step * direction, profiled.bias).loss for sign in (1, -1))
    assert float((profiled.gradient * direction).sum()) == pytest.approx((ahead - behind) / (2 * step), rel=1e-6)
