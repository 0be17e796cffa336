import pytest
import torch

pytest.importorskip("triton", reason="the kernels need triton")

from featbench.cuda.triton_operations import TritonOperations
from featbench.errors import UsageError
from featbench.features.descriptors import HOG, SIFT
from featbench.operations.reference import BankWeights, Reference, Responses
from featbench.stages.normalization import LocalNormalisation
from featbench.stages.specs import PoolingSpec

POOLINGS = [PoolingSpec("A", 4, 2), PoolingSpec("M", 3, 3), PoolingSpec("L", 3, 2, 2.0)]


@pytest.fixture
def bank(randn):
    def bank(filters, fan_in, size):
        return BankWeights(randn(filters, fan_in, size, size), randn(filters), None, 1 + randn(filters).abs(), True)

    return bank


def stage(operations, x, bank, norm, spec):
    responses = operations.filter_bank(x, bank, moments=norm is not None)
    shift, scale = (None, None) if norm is None else operations.statistics(responses, norm)
    return operations.normalise_and_pool(responses, shift, scale, spec)


def in_float64(bank):
    return BankWeights(bank.weight.double(), bank.bias.double(), None, bank.gain.double(), bank.rectified)


@pytest.mark.parametrize("spec", POOLINGS, ids=str)
@pytest.mark.parametrize("norm", [None, LocalNormalisation(5), LocalNormalisation(3, subtractive=False)])
@pytest.mark.parametrize("maps", [1, 6])
def test_a_stage_is_that_of_the_reference(randn, bank, error, maps, norm, spec):
    x, weights = randn(2, maps, 15, 14), bank(12, maps, 4)
    ours = stage(TritonOperations(), x, weights, norm, spec)
    assert error(ours, stage(Reference(), x.double(), in_float64(weights), norm, spec)) <= 1e-5


@pytest.mark.parametrize(("precision", "bound"), [("tf32", 1e-3), ("bf16", 1e-2), ("fp16", 2e-3)])
def test_a_stage_of_less_precision_is_that_of_the_reference(randn, bank, error, precision, bound):
    x, weights, norm = randn(2, 1, 15, 14), bank(12, 1, 4), LocalNormalisation(5)
    ours = stage(TritonOperations(precision), x, weights, norm, POOLINGS[0])
    assert error(ours, stage(Reference(precision), x, weights, norm, POOLINGS[0])) <= bound


@pytest.mark.parametrize("maps", [1, 6])
def test_no_images_give_no_features(randn, bank, maps):
    ours, norm = TritonOperations(), LocalNormalisation()
    responses = ours.filter_bank(randn(0, maps, 12, 11), bank(5, maps, 4), moments=True)
    assert responses.y.shape == (0, 5, 9, 8)
    assert responses.mean.shape == (0, 1, 9, 8)
    for found in (*ours.statistics(responses, norm), *ours.statistics(Responses(responses.y), norm)):
        assert found.shape == (0, 1, 9, 8)
    assert ours.normalise_and_pool(responses, *ours.statistics(responses, norm), POOLINGS[0]).shape == (0, 5, 3, 3)
    assert ours.descriptors(randn(0, 20, 24), SIFT, 16, 4).shape == (0, 2, 3, 128)
    assert ours.sparse_step(randn(0, 2, 7), randn(2, 7, 7), randn(0, 2, 7), randn(2, 7)).shape == (0, 2, 7)
    codes = randn(0, 7)
    ours.coordinate_steps(codes, randn(0, 7), torch.eye(7).to(codes), 0.1, 3)


@pytest.mark.parametrize("seen", ["x", "weight", "bias", "gain"])
def test_the_gradient_is_that_of_the_reference(randn, bank, seen):
    x, weights = randn(2, 1, 12, 11), bank(5, 1, 3)
    wanted = x if seen == "x" else getattr(weights, seen)
    wanted.requires_grad_()
    found = []
    for operations in (TritonOperations(), Reference()):
        value = stage(operations, x, weights, LocalNormalisation(5), POOLINGS[0]).square().sum()
        found.append(torch.autograd.grad(value, wanted)[0])
    assert torch.equal(*found)
    with torch.no_grad():
        assert not stage(TritonOperations(), x, weights, None, POOLINGS[0]).requires_grad


def test_the_gradients_of_other_operations_are_those_of_the_reference(randn):
    codes, mixing, drive, threshold = randn(3, 2, 5), randn(2, 5, 5), randn(3, 2, 5), randn(2, 5).abs()
    mixing.requires_grad_()
    found = [
        torch.autograd.grad(operations.sparse_step(codes, mixing, drive, threshold).square().sum(), mixing)[0]
        for operations in (TritonOperations(), Reference())
    ]
    assert torch.equal(*found)
    y = randn(1, 3, 9, 9).requires_grad_()
    shift, scale = TritonOperations().statistics(Responses(y), LocalNormalisation(3))
    assert shift.requires_grad
    assert scale.requires_grad
    assert TritonOperations().normalise_and_pool(Responses(y.detach()), shift, None, POOLINGS[0]).requires_grad


def test_other_types_are_computed_by_the_reference(randn, bank, error):
    x, weights, norm, ours, theirs = (
        randn(1, 1, 9, 9),
        bank(4, 1, 3),
        LocalNormalisation(3),
        TritonOperations(),
        Reference(),
    )
    wide = in_float64(weights)
    assert torch.equal(
        stage(ours, x.double(), wide, norm, POOLINGS[0]), stage(theirs, x.double(), wide, norm, POOLINGS[0])
    )
    images = randn(1, 18, 18).double()
    assert torch.equal(ours.descriptors(images, HOG, 16, 2), theirs.descriptors(images, HOG, 16, 2))
    step = [value.double() for value in (randn(2, 1, 4), randn(1, 4, 4), randn(2, 1, 4), randn(1, 4).abs())]
    assert torch.equal(ours.sparse_step(*step), theirs.sparse_step(*step))


def test_unknown_precision_is_refused():
    with pytest.raises(UsageError, match="unknown precision 'fp8'"):
        TritonOperations("fp8")
