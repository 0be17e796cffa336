"""Which learners' modules several threads may run at once, and that these give each thread its own features."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from torch import nn

from featbench.features.descriptors import dense_hog, dense_sift
from featbench.learning.predictive_decomposition import PredictiveEncoder
from featbench.learning.unrolled import Lcod, Lista, LowRank, Unrolled
from featbench.operations.fused_network import is_reentrant_class
from featbench.plugins import baselines, convnet, ipsd, kmeans, module, pyramids, sift, sparse_coding
from featbench.stages.connection_table import make_full_table
from featbench.stages.filters import Filters

REENTRANT = [
    *(Lista, Lcod, LowRank, convnet.MapDropout, sift._Descriptors),
    *(kmeans.Distances, kmeans.HardCode, kmeans.TriangleCode),
]

OTHERS = [
    *(PredictiveEncoder, Unrolled, baselines._Constant, ipsd.GroupPooling),
    *(module.RepeatedMap, pyramids.PyramidOfSift, sparse_coding.OptimalCodes),
]


@pytest.mark.parametrize("cls", REENTRANT)
def test_modules_that_keep_nothing_of_a_call_say_so(cls):
    assert is_reentrant_class(cls)


@pytest.mark.parametrize("cls", OTHERS)
def test_other_modules_are_run_by_one_thread_at_a_time(cls):
    assert not is_reentrant_class(cls)


def random_unrolled(kind):
    generator = torch.Generator().manual_seed(0)
    return kind(0.1 * torch.randn(2, 6, 6, generator=generator), torch.full((12,), 0.1), 5)


def random_distances():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(16, 3, 5, 5, generator=generator)
    extras = {"scale": torch.ones(1), "whitener": weight.flip(0), "shift": torch.zeros(16)}
    filters = Filters(weight, bias=torch.zeros(16), extras=extras)
    return kmeans.Distances(filters, make_full_table(3), 0.1)


MODULES = {
    "distances": (random_distances, (3, 20, 20)),
    "triangle": (kmeans.TriangleCode, (1, 12, 9, 9)),
    "hard": (kmeans.HardCode, (1, 12, 9, 9)),
    "lista": (lambda: random_unrolled(Lista), (12, 9, 9)),
    "lcod": (lambda: random_unrolled(Lcod), (12, 9, 9)),
    "dropout": (lambda: convnet.MapDropout(0.5), (12, 9, 9)),
    "sift": (lambda: sift._Descriptors(partial(dense_sift, size=8, step=4)), (1, 20, 20)),
    "hog": (lambda: sift._Descriptors(partial(dense_hog, cell=4)), (1, 20, 20)),
}


@pytest.mark.parametrize("name", MODULES)
def test_threads_get_the_features_of_their_own_maps(name):
    make, shape = MODULES[name]
    network: nn.Module = make().eval()
    maps = [torch.randn(3, *shape, generator=torch.Generator().manual_seed(seed)) for seed in range(24)]

    def compute(x):
        with torch.no_grad():
            return network(x)

    alone = [compute(x) for x in maps]
    with ThreadPoolExecutor(8) as pool:
        assert all(map(torch.equal, pool.map(compute, maps), alone))
