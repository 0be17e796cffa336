"""Batches of any size, and what becomes of those that the memory or the device refuses."""

import threading

import numpy as np
import pytest
import torch
from helpers.networks import noise, random_network
from torch import nn

from featbench.data.maps import Preprocessing, make_maps
from featbench.devices import batches as module
from featbench.devices.batches import Batches
from featbench.devices.failures import is_device_lost, is_out_of_memory
from featbench.errors import DeviceError
from featbench.features.extraction import extract
from featbench.registry import Registry

CPU = torch.device("cpu")

CPU_WORDS = (
    "[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
)
GPU_WORDS = "CUDA out of memory. Tried to allocate 9.00 GiB. GPU 0 has a total capacity of 8.00 GiB"


class Small(nn.Module):
    """Doubles maps, of so many images at most: a memory of that size."""

    def __init__(self, most, error):
        super().__init__()
        self.most, self.error, self.seen = most, error, []

    def forward(self, x):
        self.seen.append(len(x))
        if len(x) > self.most:
            raise self.error
        return 2 * x


ERRORS = [RuntimeError(CPU_WORDS), MemoryError(), torch.cuda.OutOfMemoryError(GPU_WORDS), RuntimeError(GPU_WORDS)]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("most", [1, 2, 3, 6])
def test_a_batch_that_does_not_fit_is_split_and_those_after_it_are_smaller(error, most):
    network, x = Small(most, error), noise(7, 1, 4, 4)
    with torch.no_grad():
        batches = Batches(network, CPU)
        assert torch.equal(batches.launch(x)(), 2 * x)
        before = len(network.seen)
        assert torch.equal(batches.launch(x)(), 2 * x)
    assert max(network.seen[before:]) <= most


def test_one_image_that_does_not_fit_is_refused_with_its_size():
    with torch.no_grad(), pytest.raises(DeviceError, match="one image of 1×4×5 do not fit into the memory of cpu"):
        Batches(Small(0, MemoryError()), CPU).launch(noise(3, 1, 4, 5))


def test_one_image_that_does_not_fit_later_is_refused_as_well():
    network = Small(1, MemoryError())
    with torch.no_grad():
        batches = Batches(network, CPU)
        batches.launch(noise(1, 1, 4, 5))
        network.most = 0
        with pytest.raises(DeviceError, match="use fewer filters"):
            batches.launch(noise(2, 1, 4, 5))


def test_an_image_larger_than_the_memory_is_refused_before_the_system_kills_us():
    # 64 maps of 100,000 × 100,000 pixels are 2.3 TiB; the image itself is a view of one number.
    huge = torch.zeros(1).expand(1, 1, 100_000, 100_000)
    with torch.no_grad(), pytest.raises(DeviceError, match="1×100000×100000 do not fit"):
        Batches(random_network("64F9-Rabs-N-PA10/5", (1, 20, 20)), CPU).launch(huge)


def test_maps_beyond_the_memory_that_is_left_are_refused(monkeypatch):
    monkeypatch.setattr("featbench.system.memory.UNCHECKED_BYTES", 0)
    monkeypatch.setattr("featbench.system.memory.available_memory", lambda device: 2 * 3 * 4 * 8 * 8 * 4 - 1)
    network, x = random_network("4F3-Rabs", (1, 10, 10)), noise(3, 1, 10, 10)
    with torch.no_grad():
        batches = Batches(network, CPU)
        assert torch.allclose(batches.launch(x)(), network(x), atol=1e-6)
        assert batches.batch_limit == 1
        monkeypatch.setattr("featbench.system.memory.available_memory", lambda device: 1)
        with pytest.raises(DeviceError, match="do not fit into the memory"):
            batches.launch(x)


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    with torch.no_grad(), pytest.raises(RuntimeError, match="of another kind"):
        Batches(Small(0, RuntimeError("of another kind")), CPU).launch(noise(3, 1, 4, 4))


@pytest.mark.parametrize("n", [0, 1, 2, 5])
@pytest.mark.parametrize("sides", [(9, 9), (10, 13), (23, 11)])
def test_odd_sizes_and_no_images(n, sides):
    network, x = random_network("4F3-Rabs-N3-PA2/2", (1, *sides)), noise(n, 1, *sides)
    with torch.no_grad():
        found, expected = Batches(network, CPU).launch(x)(), network(x)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-5)


def test_no_images_have_no_features_of_the_right_length():
    network = random_network("4F3-Rabs-N3-PA2/2", (1, 9, 9))
    assert extract(network, noise(0, 1, 9, 9), CPU).shape == (0, 4 * 3 * 3)


def test_as_many_images_go_together_as_the_block_holds(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_VALUES", {"cpu": 3 * 4 * 64})
    network, x = random_network("4F3-Rabs", (1, 10, 10)), noise(8, 1, 10, 10)
    with torch.no_grad():
        batches = Batches(network, CPU)
        assert batches.images_at_once(x[:1]) == 3
        assert torch.allclose(batches.launch(x)(), network(x), atol=1e-6)
        # Larger images by the same growth: fewer of them.
        assert batches.images_at_once(noise(1, 1, 20, 10)) == 1


def test_features_of_images_of_several_sizes_do_not_depend_on_the_block(monkeypatch):
    generator = np.random.default_rng(0)
    shapes = [(20, 16), (16, 20), (20, 16), (17, 18), (20, 16)]
    maps = make_maps([generator.integers(0, 256, shape, dtype=np.uint8) for shape in shapes], Preprocessing(lcn=1.0))
    network = random_network("6F3-Rabs-N-PA2/2", (1, 8, 8))

    def features(most):
        monkeypatch.setattr(module, "BLOCK_VALUES", {"cpu": most})
        from featbench.features.extraction import compute_features

        blocks = compute_features(network, maps, CPU, several_sizes=True)
        return np.concatenate([block.values for block in blocks])

    assert np.array_equal(features(1), features(2**21))


LOST = [
    "CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronously reported",
    "CUDA error: the launch timed out and was terminated",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
]


@pytest.mark.parametrize("words", LOST)
def test_a_device_that_failed_is_told_from_a_lack_of_memory(words):
    assert is_device_lost(RuntimeError(words))
    assert not is_out_of_memory(RuntimeError(words))


@pytest.mark.parametrize(
    "error",
    [
        *ERRORS,
        RuntimeError("shapes differ"),
        ValueError("CUDA error"),
        KeyError("x"),
        RuntimeError("CUDA error: invalid configuration argument"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_what_is_not_a_lost_device(error):
    assert not is_device_lost(error)


PLUGIN = """
import threading
from typing import ClassVar
import torch
import featbench

class Keeper(torch.nn.Module):
    # DECLARED
    meet = None  # what is done inside of a call
    def forward(self, x):
        if type(self).meet is not None:
            type(self).meet()
        return 2 * x

class Derived(Keeper):
    pass

class Doubling(featbench.NetworkLearner):
    '''Doubles maps.'''
    name = "doubling"
    family = "fixed"
    def network(self, shape, maps, seed):
        return torch.nn.Sequential(torch.nn.Identity(), CLASS())

@featbench.hookimpl
def featbench_learners():
    return [Doubling]
"""


@pytest.mark.parametrize(
    "declared, cls, expected",
    [("reentrant: ClassVar[bool] = True", "Keeper", 2), ("", "Keeper", 1), ("reentrant = True", "Derived", 1)],
)
def test_several_threads_run_a_plugins_module_only_if_its_own_class_declares_it(
    declared, cls, expected, write_plugin, monkeypatch
):  # fmt: skip
    source = PLUGIN.replace("# DECLARED", declared).replace("CLASS()", f"{cls}()")
    registry = Registry([write_plugin(f"doubling_{cls}_{expected}_{len(declared)}", source)], strict=True)
    network = registry.learner("doubling")().network((1, 4, 4), None, 0)
    before, threads = torch.get_num_threads(), set()
    together = threading.Barrier(expected)

    def meet():
        # Where two threads are expected, each waits in the module for the other: one alone would break the barrier.
        threads.add(threading.get_ident())
        together.wait(timeout=60)

    try:
        torch.set_num_threads(2)
        with torch.no_grad():
            batches, x = Batches(network, CPU), noise(4, 1, 4, 4)
            batches.images_at_once(x[:1])
            batches.batch_limit = 1
            monkeypatch.setattr(type(network[1]), "meet", staticmethod(meet))
            assert torch.equal(batches.launch(x)(), 2 * x)
    finally:
        torch.set_num_threads(before)
    assert len(threads) == expected
