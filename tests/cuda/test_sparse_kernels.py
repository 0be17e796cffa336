import math

import pytest
import torch

pytest.importorskip("triton", reason="the kernels need triton")

from featbench.cuda.triton_operations import TritonOperations
from featbench.operations.reference import Reference


@pytest.mark.parametrize(("rows", "groups", "units"), [(5, 1, 16), (3, 4, 7), (1, 1, 1), (2, 3, 1030), (70, 2, 33)])
def test_a_step_is_that_of_the_reference(randn, error, rows, groups, units):
    codes, drive = randn(rows, groups, units), randn(rows, groups, units)
    mixing, threshold = randn(groups, units, units) / math.sqrt(units), randn(groups, units).abs()
    drive_before = drive.clone()
    ours = TritonOperations().sparse_step(codes, mixing, drive, threshold)
    wide = (x.double() for x in (codes, mixing, drive, threshold))
    assert error(ours, Reference().sparse_step(*wide)) <= 1e-5
    assert torch.equal(drive, drive_before)
    assert torch.equal(ours == 0, Reference().sparse_step(codes, mixing, drive, threshold) == 0)


def test_thresholds_of_every_kind(device):
    drive = torch.tensor([[[-2.0, -1.0, 0.0, 1.0, 2.0, math.inf, math.nan, 0.0, 3.0]]], device=device)
    threshold = torch.tensor([[1.0, 1.0, 0.0, 2.0, 0.0, 1.0, 1.0, -1.0, -1.0]], device=device)
    zero = torch.zeros(1, 9, 9, device=device)
    ours = TritonOperations().sparse_step(torch.zeros_like(drive), zero, drive, threshold).flatten().tolist()
    assert ours[:6] == [-1.0, 0.0, 0.0, 0.0, 2.0, math.inf]
    assert math.isnan(ours[6])
    assert ours[7:] == [0.0, 4.0]


def test_one_threshold_may_stand_for_all_groups(randn):
    codes, mixing, drive, threshold = randn(3, 2, 4), randn(2, 4, 4), randn(3, 2, 4), randn(1, 4).abs()
    ours = TritonOperations()
    expected = ours.sparse_step(codes, mixing, drive, threshold.repeat(2, 1))
    assert torch.equal(ours.sparse_step(codes, mixing, drive, threshold), expected)
    assert torch.equal(ours.sparse_step(codes, mixing, drive, threshold[0]), expected)


@pytest.mark.parametrize(("rows", "units"), [(5, 16), (1, 1), (7, 37), (2, 1030), (0, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_momentum_is_that_of_the_reference(randn, rows, units, dtype):
    moved, codes, extrapolated = (randn(rows, units).to(dtype) for _ in range(3))
    extrapolated = moved + (moved - codes) * torch.linspace(-1, 1, rows, dtype=dtype, device=moved.device)[:, None]
    momentum = 1 + randn(rows, 1).abs().to(dtype)
    state = moved, codes, extrapolated, momentum
    wide = Reference().momentum_step(*(tensor.double() for tensor in state))
    if rows > 4:
        uphill = ((extrapolated - moved) * (moved - codes)).sum(dim=1) > 0
        assert uphill.any()
        assert not uphill.all()
    for mine, truth in zip(TritonOperations().momentum_step(*state), wide, strict=True):
        assert mine.dtype == dtype
        torch.testing.assert_close(mine.double(), truth, rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=1e-6)


@pytest.fixture
def problem(randn):
    """Draw codes, targets and coupling of n patches, m atoms of several norms, some of norm 0."""

    def problem(n, units, dtype=torch.float64, empty=0):
        atoms = randn(20, units).to(dtype)
        atoms[:, :empty] = 0
        codes, coupling = 0.1 * randn(n, units).to(dtype), atoms.T @ atoms
        between = coupling - torch.diag(coupling.diagonal())
        return codes, randn(n, 20).to(dtype) @ atoms - codes @ between, coupling

    return problem


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize(
    ("n", "units", "steps", "empty"), [(3, 32, 40, 0), (1, 1, 2, 0), (4, 37, 25, 2), (2, 130, 1, 0), (2, 5, 0, 1)]
)
def test_all_steps_at_once_are_the_steps_one_by_one(problem, error, n, units, steps, empty, nonnegative):
    codes, targets, coupling = problem(n, units, empty=empty)
    expected = codes.clone(), targets.clone()
    Reference().coordinate_steps(*expected, coupling, 0.7, steps, nonnegative=nonnegative)
    ours = codes.clone(), targets.clone()
    TritonOperations().coordinate_steps(*ours, coupling, 0.7, steps, nonnegative=nonnegative)
    assert error(ours[0], expected[0]) <= 1e-12
    assert error(ours[1], expected[1]) <= 1e-12
    assert torch.equal(ours[0][:, :empty], codes[:, :empty])


def test_steps_in_float32(problem, error):
    codes, targets, coupling = problem(6, 24)
    ours = codes.float(), targets.float()
    TritonOperations().coordinate_steps(*ours, coupling.float(), 0.7, 12)
    Reference().coordinate_steps(codes, targets, coupling, 0.7, 12)
    assert ours[0].dtype == torch.float32
    assert error(ours[0], codes) <= 1e-5
    assert error(ours[1], targets) <= 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_first_wins_a_tie(device, dtype):
    codes = torch.zeros(2, 5, dtype=dtype, device=device)
    targets = torch.tensor([[1.0, 3.0, -3.0, 3.0, 2.0], [0.5, 0.0, 0.0, 0.0, 0.0]], dtype=dtype, device=device)
    expected = codes.clone(), targets.clone()
    coupling = torch.full((5, 5), 0.5, dtype=dtype, device=device).fill_diagonal_(1)
    TritonOperations().coordinate_steps(codes, targets, coupling, 1.0, 1)
    assert codes.tolist() == [[0.0, 2.0, 0.0, 0.0, 0.0], [0.0] * 5]
    assert targets.tolist() == [[0.0, 3.0, -4.0, 2.0, 1.0], [0.5, 0.0, 0.0, 0.0, 0.0]]
    Reference().coordinate_steps(*expected, coupling, 1.0, 1)
    assert torch.equal(codes, expected[0])


def test_codes_may_lie_in_memory_as_they_like(problem):
    codes, targets, coupling = problem(4, 9)
    ours = codes.T.contiguous().T, torch.cat([targets, targets], dim=1)[:, :9]
    TritonOperations().coordinate_steps(*ours, coupling, 0.3, 7)
    Reference().coordinate_steps(codes, targets, coupling, 0.3, 7)
    assert torch.allclose(ours[0], codes)
    assert torch.allclose(ours[1], targets)


def test_the_threshold_is_not_rounded_to_float32(device):
    codes, targets = (torch.full((1, 1), value, dtype=torch.float64, device=device) for value in (0.0, 1.0))
    TritonOperations().coordinate_steps(codes, targets, torch.ones_like(codes), 0.1, 1)
    assert codes.item() == 1 - 0.1


def test_a_row_gives_the_same_bits_in_every_batch(problem):
    codes, targets, coupling = problem(5, 21)
    alone = codes[2:3].clone(), targets[2:3].clone()
    TritonOperations().coordinate_steps(codes, targets, coupling, 0.4, 15)
    TritonOperations().coordinate_steps(*alone, coupling, 0.4, 15)
    assert torch.equal(alone[0][0], codes[2])
    assert torch.equal(alone[1][0], targets[2])
