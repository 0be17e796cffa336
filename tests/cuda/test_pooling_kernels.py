import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton", reason="the kernels need triton")

from featbench.cuda.triton_operations import TritonOperations
from featbench.errors import ArchitectureError
from featbench.operations.reference import Reference, Responses
from featbench.stages.specs import PoolingSpec


def drawn(device, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(device)


def check(y, shift, scale, spec, bound=1e-5):
    ours = TritonOperations().normalise_and_pool(Responses(y), shift, scale, spec)
    wide = [x if x is None else x.double() for x in (y, shift, scale)]
    theirs = Reference().normalise_and_pool(Responses(wide[0]), *wide[1:], spec)
    assert ours.dtype == torch.float32
    assert ours.shape == theirs.shape
    assert ours.is_contiguous()
    assert torch.linalg.vector_norm(ours.double() - theirs) <= bound * torch.linalg.vector_norm(theirs)


@given(
    kind=st.sampled_from("AM"),
    size=st.integers(1, 7),
    stride=st.integers(1, 5),
    sides=st.tuples(st.integers(7, 24), st.integers(7, 24)),
    n=st.integers(1, 2),
    maps=st.sampled_from([1, 3, 16, 17]),
    normalised=st.tuples(st.booleans(), st.booleans()),
    last=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_windows_of_any_size_and_step(kind, size, stride, sides, n, maps, normalised, last):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    y = drawn(device, n, maps, *sides)
    y = y.contiguous(memory_format=torch.channels_last) if last else y
    shift = drawn(device, n, 1, *sides) if normalised[0] else None
    scale = 0.5 + drawn(device, n, 1, *sides).abs() if normalised[1] else None
    check(y, shift, scale, PoolingSpec(kind, size, stride))


@pytest.mark.parametrize("kind", "AM")
@pytest.mark.parametrize(("maps", "width"), [(65, 5), (130, 4), (3, 150)])
def test_more_maps_and_columns_than_a_program_holds(device, kind, maps, width):
    y, scale = drawn(device, 1, maps, 4, width), 1 + drawn(device, 1, 1, 4, width).abs()
    check(y, -scale, scale, PoolingSpec(kind, 2, 1))


@pytest.mark.parametrize("kind", "AM")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_maps_of_16_bits_are_pooled_in_float32(device, kind, dtype):
    y, scale = drawn(device, 2, 9, 8, 7).to(dtype), 1 + drawn(device, 2, 1, 8, 7).abs()
    check(y, None, scale, PoolingSpec(kind, 4, 2))


@pytest.mark.parametrize("spec", [PoolingSpec("L", 3, 2, 2.0), PoolingSpec("A", 2, 1, over_maps=True)])
def test_other_poolings_are_those_of_the_reference(device, spec):
    check(drawn(device, 2, 4, 7, 8), drawn(device, 2, 1, 7, 8), None, spec)


@pytest.mark.parametrize("kind", "AM")
def test_a_nan_is_in_the_windows_that_hold_it(device, kind):
    y = drawn(device, 1, 2, 6, 6)
    y[0, 0, 3, 3] = math.nan
    y[0, 1, 0, 0] = -math.inf
    ours = TritonOperations().normalise_and_pool(Responses(y), None, None, PoolingSpec(kind, 2, 2)).cpu()
    theirs = Reference().normalise_and_pool(Responses(y.cpu()), None, None, PoolingSpec(kind, 2, 2))
    assert torch.allclose(ours, theirs, equal_nan=True)


def test_an_image_gives_the_same_bits_in_every_batch(device):
    y, scale, spec = drawn(device, 3, 20, 13, 12), 1 + drawn(device, 3, 1, 13, 12).abs(), PoolingSpec("A", 5, 3)
    together = TritonOperations().normalise_and_pool(Responses(y), scale, scale, spec)
    for i in range(3):
        one = slice(i, i + 1)
        alone = TritonOperations().normalise_and_pool(Responses(y[one]), scale[one], scale[one], spec)
        assert torch.equal(alone[0], together[i])


def test_maps_smaller_than_a_window_are_refused(device):
    with pytest.raises(ArchitectureError):
        TritonOperations().normalise_and_pool(Responses(drawn(device, 1, 2, 5, 9)), None, None, PoolingSpec("A", 6, 2))
