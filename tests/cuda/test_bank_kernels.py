import math

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="the kernels need triton")

import triton.language as tl

from featbench.cuda.bank_kernels import tanh
from featbench.cuda.kernel import kernel, launch
from featbench.cuda.triton_operations import TritonOperations
from featbench.errors import UsageError
from featbench.operations.reference import BankWeights, Reference

BOUNDS = {"float32": 1e-5, "tf32": 1e-3, "bf16": 1e-2, "fp16": 2e-3}


@kernel
def _tanh_of(x: tl.tensor, y: tl.tensor, count: tl.tensor, block: tl.constexpr):
    place = tl.program_id(0) * block + tl.arange(0, block)
    tl.store(y + place, tanh(tl.load(x + place, place < count, other=0.0)), place < count)


def tanh_of(x):
    y = torch.empty_like(x)
    launch(_tanh_of, -(-len(x) // 4096), x, y, len(x), block=4096)
    return y


@pytest.fixture
def bank(randn):
    """Draw a filter bank; with a table, of `groups` subsets of `maps`."""

    def bank(filters, fan_in, size, *, maps=None, groups=None, gain=True, rectified=True):
        weight = randn(filters, fan_in, size, size) / math.sqrt(fan_in * size * size)
        table = None
        if groups is not None:
            generator = torch.Generator().manual_seed(1)
            table = torch.stack([torch.randperm(maps, generator=generator)[:fan_in] for _ in range(groups)])
            table = table.to(weight.device)
        gains = 1 + 0.5 * randn(filters) if gain else None
        return BankWeights(weight, 0.3 * randn(filters), table, gains, rectified)

    return bank


def in_float64(bank):
    gain = None if bank.gain is None else bank.gain.double()
    return BankWeights(bank.weight.double(), bank.bias.double(), bank.table, gain, bank.rectified)


def test_tanh_is_right_to_a_few_units_in_the_last_place(device):
    sizes = np.concatenate([np.logspace(-37, 2, 4001), np.linspace(0.99, 1.01, 500), np.linspace(0, 12, 3000)[1:]])
    x = np.concatenate([sizes, -sizes]).astype(np.float32)
    ours = tanh_of(torch.from_numpy(x).to(device)).cpu().numpy().astype(np.float64)
    assert np.abs(ours / np.tanh(x.astype(np.float64)) - 1).max() <= 3e-7


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_tanh_of_what_is_not_a_number_or_not_finite(device):
    x = torch.tensor([0.0, math.inf, -math.inf, 3e38, -3e38, 1.0, -1.0, math.nan], device=device)
    ours = tanh_of(x).cpu()
    assert ours[-1].isnan()
    assert torch.allclose(ours[:-1], torch.tanh(x[:-1].cpu()), rtol=3e-7, atol=0)


@pytest.mark.parametrize("precision", BOUNDS)
@pytest.mark.parametrize(
    ("n", "maps", "height", "width", "filters", "size"),
    [
        (2, 1, 17, 22, 64, 9),  # a first layer, in one kernel; a tile is not full
        (1, 3, 9, 9, 3, 9),  # colour; one pixel comes out
        (2, 1, 6, 7, 65, 2),
        (1, 2, 12, 11, 130, 3),  # more maps than a program holds at once
        (3, 1, 5, 4, 1, 1),
        (2, 6, 11, 10, 20, 4),  # a layer above, by cuDNN
        (1, 5, 6, 8, 130, 3),
        (2, 5, 4, 6, 1, 2),
    ],
)
def test_a_bank_gives_what_the_reference_gives(
    randn, bank, error, precision, n, maps, height, width, filters, size
):  # fmt: skip
    x, weights = randn(n, maps, height, width), bank(filters, maps, size)
    ours = TritonOperations(precision).filter_bank(x, weights, moments=True)
    if precision == "float32":
        theirs = Reference().filter_bank(x.double(), in_float64(weights), moments=True)
    else:
        theirs = Reference(precision).filter_bank(x, weights, moments=True)
        assert ours.y.dtype == theirs.y.dtype
    bound = BOUNDS[precision]
    assert error(ours.y, theirs.y) <= bound
    assert error(ours.mean, theirs.mean) <= bound
    assert error(ours.mean_square, theirs.mean_square) <= bound
    assert ours.own
    assert ours.y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("maps", [1, 5])
@pytest.mark.parametrize("gain", [True, False])
@pytest.mark.parametrize("rectified", [True, False])
@pytest.mark.parametrize("moments", [True, False])
def test_what_is_not_asked_for_is_not_done(randn, bank, error, maps, gain, rectified, moments):
    x, weights = randn(2, maps, 8, 9), bank(7, maps, 3, gain=gain, rectified=rectified)
    ours = TritonOperations().filter_bank(x, weights, moments=moments)
    theirs = Reference().filter_bank(x.double(), in_float64(weights), moments=moments)
    assert error(ours.y, theirs.y) <= 1e-5
    if moments:
        assert error(ours.mean, theirs.mean) <= 1e-5
        assert error(ours.mean_square, theirs.mean_square) <= 1e-5
    else:
        assert ours.mean is None
        assert ours.mean_square is None


@pytest.mark.parametrize("precision", BOUNDS)
@pytest.mark.parametrize(("maps", "fan_in", "filters", "groups"), [(8, 3, 12, 4), (6, 6, 5, 1), (2, 1, 65, 65)])
def test_a_table_says_which_maps_a_group_sees(randn, bank, error, precision, maps, fan_in, filters, groups):
    x, weights = randn(2, maps, 7, 6), bank(filters, fan_in, 3, maps=maps, groups=groups)
    ours = TritonOperations(precision).filter_bank(x, weights, moments=True)
    if precision == "float32":
        theirs = Reference().filter_bank(x.double(), in_float64(weights), moments=True)
    else:
        theirs = Reference(precision).filter_bank(x, weights, moments=True)
    assert error(ours.y, theirs.y) <= BOUNDS[precision]
    assert error(ours.mean, theirs.mean) <= BOUNDS[precision]


def test_images_may_lie_in_memory_as_they_like(randn, bank):
    weights, ours = bank(16, 3, 4), TritonOperations()
    x = randn(2, 3, 24, 22)[:, :, ::2, ::2]
    expected = ours.filter_bank(x.contiguous(), weights).y
    for strange in (x, x.contiguous(memory_format=torch.channels_last), x.mT.contiguous().mT):
        assert torch.equal(ours.filter_bank(strange, weights).y, expected)


@pytest.mark.parametrize("precision", BOUNDS)
def test_an_image_gives_the_same_bits_in_every_batch(randn, bank, precision):
    x, weights = randn(4, 1, 15, 14), bank(12, 1, 5)
    ours = TritonOperations(precision)
    together = ours.filter_bank(x, weights, moments=True)
    for i in range(4):
        alone = ours.filter_bank(x[i : i + 1], weights, moments=True)
        assert torch.equal(alone.y[0], together.y[i])
        assert torch.equal(alone.mean[0], together.mean[i])
        assert torch.equal(alone.mean_square[0], together.mean_square[i])


def test_one_bias_and_one_gain_may_stand_for_all(randn, bank):
    x, weights, value = randn(1, 1, 6, 6), bank(5, 1, 3), randn(1)
    shared = BankWeights(weights.weight, value.expand(5), None, value.expand(5))
    copied = BankWeights(weights.weight, value.repeat(5), None, value.repeat(5))
    assert torch.equal(TritonOperations().filter_bank(x, shared).y, TritonOperations().filter_bank(x, copied).y)


def test_global_settings_of_cudnn_are_left_as_they_were(randn, bank):
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark
    TritonOperations("tf32").filter_bank(randn(1, 6, 5, 5), bank(4, 6, 3))
    TritonOperations().filter_bank(randn(1, 6, 5, 5), bank(4, 6, 3))
    assert before == (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark)


@pytest.mark.parametrize("maps", [1, 5])
def test_a_nan_stays_where_it_is_seen(randn, bank, maps):
    x = randn(1, maps, 8, 8)
    x[0, 0, 0, 0] = math.nan
    y = TritonOperations().filter_bank(x, bank(4, maps, 3)).y
    assert y[0, :, 0, 0].isnan().all()
    assert int(y.isnan().sum()) == 4


def test_maps_that_do_not_fit_the_bank_are_refused(randn, bank):
    ours = TritonOperations()
    with pytest.raises(UsageError, match="sees 2 maps, but 3 come in"):
        ours.filter_bank(randn(1, 3, 9, 9), bank(4, 2, 3))
    with pytest.raises(UsageError, match="9×9 do not fit maps of 8×20"):
        ours.filter_bank(randn(1, 1, 8, 20), bank(4, 1, 9))
    weights = bank(4, 1, 3)
    with pytest.raises(UsageError, match="4 filters need a gain each"):
        ours.filter_bank(randn(1, 1, 8, 8), BankWeights(weights.weight, weights.bias, None, weights.gain[:3]))
