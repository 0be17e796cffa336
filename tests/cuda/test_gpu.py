"""Extraction where there is a GPU: streams, graphs, precisions and lack of memory. Elsewhere all of it is skipped."""

import numpy as np
import pytest
import torch
from helpers.networks import noise, random_network
from torch import nn

from featbench.cuda.graphs import Graphed
from featbench.data.maps import Preprocessing, make_maps
from featbench.devices.batches import Batches
from featbench.features.extraction import compute_features, extract

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

CPU, GPU = torch.device("cpu"), torch.device("cuda")
TEXTS = ["64F9-Rabs-N-PA10/5", "16F5-Rabs-N-PA4/2 > 32F3:4-Rabs-N-PA2/2", "8F5-N-PM3", "8C5-relu-PA3/2"]


def relative(found, truth):
    return np.linalg.norm(found - truth) / np.linalg.norm(truth)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("precision, bound", [("float32", 1e-5), ("tf32", 3e-3), ("bf16", 2e-2), ("fp16", 3e-3)])
def test_a_gpu_gives_the_features_of_float64(text, precision, bound):
    network, x = random_network(text, (1, 65, 65)), noise(9, 1, 65, 65)
    with torch.no_grad():
        truth = network.double()(x.double()).flatten(1).numpy()
    assert relative(extract(network.float(), x, GPU, precision=precision), truth) < bound


@pytest.mark.parametrize("text", TEXTS[:2])
def test_a_graph_gives_what_its_kernels_give_in_batches_of_any_size(text):
    network = random_network(text, (1, 65, 65)).to(GPU).eval()
    with torch.no_grad():
        from featbench.devices.selection import select_operations
        from featbench.operations.fused_network import FusedNetwork

        fused = FusedNetwork(network, select_operations(GPU))
        graphed = Graphed(fused)
        for seed, count in enumerate((4, 4, 3, 4, 1)):
            x = noise(count, 1, 65, 65, seed=seed).to(GPU)
            torch.testing.assert_close(graphed(x), fused(x), rtol=1e-5, atol=1e-6)


def test_a_network_that_waits_for_the_gpu_runs_without_a_graph(caplog):
    class Waits(nn.Module):
        def forward(self, x):
            return x * float(x.sum().cpu() > -1e9)

    x = noise(5, 1, 8, 8)
    assert np.array_equal(extract(Waits(), x, GPU), x.flatten(1).numpy())
    assert "cannot be recorded as a CUDA graph" in caplog.text


def test_images_of_bytes_have_the_features_of_the_cpu():
    generator = np.random.default_rng(0)
    shapes = [(50, 41), (41, 50), (50, 50), (30, 50)] * 5
    pixels = [generator.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    padded = make_maps(pixels, Preprocessing(lcn=1.0, pad=True))
    network = random_network(TEXTS[1], padded.shape)
    assert relative(extract(network, padded, GPU), extract(network, padded, CPU)) < 1e-5
    several = make_maps(pixels, Preprocessing(lcn=1.0))
    here, there = (list(compute_features(network, several, device, several_sizes=True)) for device in (CPU, GPU))
    assert [block.grids for block in here] == [block.grids for block in there]
    values, expected = (np.concatenate([block.values for block in blocks]) for blocks in (there, here))
    assert relative(values, expected) < 1e-5


def test_a_batch_that_does_not_fit_into_a_gpu_is_split():
    network, x = random_network(TEXTS[0], (1, 143, 143)), noise(64, 1, 143, 143)
    whole = extract(network, x, GPU)
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.empty_cache()
    try:
        # Room for about ten images.
        torch.cuda.set_per_process_memory_fraction(min(1.0, 300e6 / total))
        with torch.no_grad():
            batches = Batches(network, GPU)
            found = batches.launch(x)().flatten(1).numpy()
        assert batches.batch_limit is not None
        assert relative(found, whole) < 1e-6
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_the_same_features_come_twice():
    network, x = random_network(TEXTS[0], (1, 143, 143)), noise(20, 1, 143, 143)
    assert np.array_equal(extract(network, x, GPU), extract(network, x, GPU))
