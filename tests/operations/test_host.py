"""The operations of a CPU against plain torch in float64, and against themselves in other batches and threads."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featbench.devices.selection import select_operations
from featbench.errors import UsageError
from featbench.operations import host as module
from featbench.operations.precision import round_to_tf32
from featbench.operations.reference import BankWeights, Reference, Responses
from featbench.stages.connection_table import draw_connection_table
from featbench.stages.normalization import LocalNormalisation
from featbench.stages.specs import PoolingSpec

HOST, TRUTH = select_operations("cpu"), Reference()


def noise(*shape, seed=0, scale=1.0):
    return torch.from_numpy(scale * np.random.default_rng(seed).standard_normal(shape)).float()


def bank_of(filters, maps, size, *, gain="some", rectified=False, fan_in=None, seed=1):
    table = None if fan_in is None else torch.from_numpy(draw_connection_table(maps, filters, fan_in, seed))
    weight = noise(filters, fan_in or maps, size, size, seed=seed, scale=0.3)
    gains = {"none": None, "ones": torch.ones(filters), "some": noise(filters, seed=seed + 1)}
    return BankWeights(weight, noise(filters, seed=seed + 2), table, gains[gain], rectified)


def in_double(bank):
    gain = None if bank.gain is None else bank.gain.double()
    return BankWeights(bank.weight.double(), bank.bias.double(), bank.table, gain, bank.rectified)


def error(found, truth):
    assert found.shape == truth.shape
    return float((found.double() - truth.double()).norm() / truth.double().norm().clamp_min(1e-30))


@pytest.mark.parametrize("gain", ["none", "ones", "some"])
@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("moments", [False, True])
@pytest.mark.parametrize(
    "n, maps, filters, size, fan_in, sides",
    [(1, 1, 1, 1, None, (1, 1)), (3, 1, 5, 3, None, (9, 12)), (2, 4, 6, 2, None, (7, 5)), (2, 6, 8, 3, 2, (8, 11))],
)
def test_a_filter_bank_equals_plain_torch(gain, rectified, moments, n, maps, filters, size, fan_in, sides):
    bank = bank_of(filters, maps, size, gain=gain, rectified=rectified, fan_in=fan_in)
    x = noise(n, maps, *sides)
    found, truth = (
        HOST.filter_bank(x, bank, moments=moments),
        TRUTH.filter_bank(x.double(), in_double(bank), moments=True),
    )
    assert error(found.y, truth.y) < 1e-6
    assert (found.mean is None) == (not moments)
    if moments:
        assert error(found.mean, truth.mean) < 1e-5
        assert error(found.mean_square, truth.mean_square) < 1e-6


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e3])
def test_tanh_keeps_its_digits_whatever_the_scale(scale):
    x, bank = noise(2, 1, 12, 12, scale=scale), bank_of(4, 1, 3, gain="ones")
    bank = BankWeights(bank.weight, 0 * bank.bias, None, bank.gain)
    assert error(HOST.filter_bank(x, bank).y, TRUTH.filter_bank(x.double(), in_double(bank)).y) < 1e-6


def test_tanh_after_the_convolution_gives_the_same_where_torch_cannot_join_them(monkeypatch):
    x, bank = noise(2, 3, 12, 12), bank_of(8, 3, 3)
    joined = HOST.filter_bank(x, bank, moments=True)
    module.find_tanh_convolution.cache_clear()
    monkeypatch.delattr(torch._ops._OpNamespace, "_convolution_pointwise", raising=False)
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    apart = HOST.filter_bank(x, bank, moments=True)
    module.find_tanh_convolution.cache_clear()
    assert error(joined.y, apart.y) < 1e-6
    assert error(joined.mean_square, apart.mean_square) < 1e-6


def test_a_convolution_that_is_joined_but_wrong_is_not_used(monkeypatch):
    class Wrong:
        def _convolution_pointwise(self, x, weight, bias, *rest):
            return torch.nn.functional.conv2d(x, weight, bias, groups=rest[3])

    module.find_tanh_convolution.cache_clear()
    monkeypatch.setattr(torch.ops, "mkldnn", Wrong())
    assert module.find_tanh_convolution().__name__ == "apart"
    module.find_tanh_convolution.cache_clear()


@pytest.mark.parametrize("norm", [{}, {"size": 5}, {"zeros": True}, {"subtractive": False}, {"divisive": False}])
@pytest.mark.parametrize("pool", ["A10/5", "A3/3", "A4/6", "A3/2", "M3/2", "M4/4", "L2:3/2", "F"])
@pytest.mark.parametrize("own", [False, True])
def test_normalised_pooling_equals_plain_torch(norm, pool, own):
    y, local = noise(2, 6, 14, 17, seed=3), LocalNormalisation(**norm)
    if pool == "F":
        spec = PoolingSpec("A", 3, 2, over_maps=True)
    elif pool[0] == "L":
        spec = PoolingSpec("L", 3, 2, 2.0)
    else:
        spec = PoolingSpec(pool[0], *(int(side) for side in pool[1:].split("/")))
    truth = Responses(y.double())
    expected = TRUTH.normalise_and_pool(truth, *TRUTH.statistics(truth, local), spec)
    before, mine = y.clone(), Responses(y.clone() if own else y, own=own)
    found = HOST.normalise_and_pool(mine, *HOST.statistics(mine, local), spec)
    assert error(found, expected) < 1e-5
    assert torch.equal(y, before)


def test_maps_that_someone_else_holds_are_left_as_they_are():
    y, local = noise(1, 4, 9, 9), LocalNormalisation(3)
    before = y.clone()
    responses = Responses(y)
    HOST.normalise(responses, *HOST.statistics(responses, local))
    HOST.normalise_and_pool(responses, *HOST.statistics(responses, local), PoolingSpec("A", 2, 2))
    assert torch.equal(y, before)


@settings(derandomize=True, deadline=None, database=None, max_examples=60)
@given(st.integers(1, 12), st.integers(1, 7), st.integers(0, 30))
def test_pooling_in_two_steps_is_pooling_in_one(size, stride, more):
    y = noise(1, 2, size + more, size + more // 2, seed=size)
    expected = torch.nn.functional.avg_pool2d(y.double(), size, stride)
    assert error(module._average_pool(y, size, stride), expected) < 1e-6


@pytest.mark.parametrize("groups, m", [(1, 7), (3, 5)])
@pytest.mark.parametrize("lowest", [0.0, -0.5])
def test_a_sparse_step_is_a_product_and_a_threshold(groups, m, lowest):
    codes, drive = noise(6, groups, m), noise(6, groups, m, seed=1)
    mixing, threshold = noise(groups, m, m, seed=2), noise(groups, m, seed=3).abs() + lowest
    moved = drive.double() + torch.stack([codes[:, g].double() @ mixing[g].double() for g in range(groups)], dim=1)
    expected = moved.sign() * (moved.abs() - threshold.double()).clamp_min(0)
    before = drive.clone()
    assert error(HOST.sparse_step(codes, mixing, drive, threshold), expected) < 1e-6
    assert torch.equal(drive, before)


def test_zero_stays_zero_whatever_the_threshold():
    drive, zero = torch.tensor([[[0.0, -3.0, 3.0]]]), torch.zeros(1, 3, 3)
    found = HOST.sparse_step(torch.zeros(1, 1, 3), zero, drive, torch.full((1, 3), -1.0))
    assert found.flatten().tolist() == [0.0, -4.0, 4.0]


def test_gradients_are_those_of_plain_torch():
    bank = bank_of(4, 2, 3, rectified=True)
    weight, x = bank.weight.clone().requires_grad_(), noise(2, 2, 12, 12).requires_grad_()

    def gradients(operations):
        learned = BankWeights(weight, bank.bias, None, bank.gain, True)
        responses = operations.filter_bank(x, learned, moments=True)
        shift, scale = operations.statistics(responses, LocalNormalisation(3))
        out = operations.normalise_and_pool(responses, shift, scale, PoolingSpec("A", 4, 2))
        return torch.autograd.grad(out.square().sum(), (weight, x))

    for mine, theirs in zip(gradients(HOST), gradients(TRUTH), strict=True):
        assert torch.equal(mine, theirs)


def test_the_reference_has_the_gradients_of_finite_differences():
    bank = in_double(bank_of(3, 2, 2, rectified=True))

    def run(x, weight, gain):
        responses = TRUTH.filter_bank(x, BankWeights(weight, bank.bias, None, gain, True), moments=True)
        shift, scale = TRUTH.statistics(responses, LocalNormalisation(3))
        return TRUTH.normalise_and_pool(responses, shift, scale, PoolingSpec("A", 2, 1))

    inputs = (noise(1, 2, 5, 5).double(), bank.weight, bank.gain)
    assert torch.autograd.gradcheck(run, [value.clone().requires_grad_() for value in inputs])


@pytest.mark.parametrize("precision, bound", [("tf32", 2e-3), ("bf16", 1e-2), ("fp16", 2e-3)])
def test_a_precision_errs_as_much_as_its_digits_say(precision, bound):
    operations, bank, x = select_operations("cpu", precision), bank_of(16, 4, 5), noise(2, 4, 20, 20)
    responses = operations.filter_bank(x, bank, moments=True)
    truth = TRUTH.filter_bank(x.double(), in_double(bank))
    assert bound / 50 < error(responses.y, truth.y) < bound
    assert error(responses.y, Reference(precision).filter_bank(x, bank).y) < bound / 5
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    assert responses.y.dtype == half
    pooled = operations.normalise_and_pool(responses, None, None, PoolingSpec("A", 2, 2))
    assert pooled.dtype == torch.float32


@settings(derandomize=True, deadline=None, database=None, max_examples=200)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**100), max_value=2.0**100))
def test_tf32_rounds_to_eleven_bits(value):
    (found,) = round_to_tf32(torch.tensor([value])).tolist()
    mantissa, exponent = np.frexp(np.float64(value))
    if abs(value) >= 2.0**-120:
        assert found == np.ldexp(np.round(mantissa * 2**11) / 2**11, exponent)


def test_tf32_keeps_what_is_not_finite():
    odd = torch.tensor([float("inf"), -float("inf"), float("nan")])
    assert torch.equal(round_to_tf32(odd).nan_to_num(7), odd.nan_to_num(7))


@pytest.mark.parametrize("bad", ["float16", "", "fp32"])
def test_an_unknown_precision_is_refused_with_those_that_there_are(bad):
    with pytest.raises(UsageError, match="it is float32, tf32, bf16, fp16"):
        select_operations("cpu", bad)
