"""A network as it is trained against its own modules: features, gradients, and what is known of its modules."""

import copy

import pytest
import torch
from helpers.networks import noise, random_network
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from featbench.errors import ArchitectureError
from featbench.learning.networks import assemble, learn_stages
from featbench.plugins.convnet import ConvNet, MapDropout
from featbench.refinement import trained_network as module
from featbench.refinement.classifier_layer import HiddenLayer
from featbench.refinement.trained_network import TrainedNetwork
from featbench.stages.architecture import Architecture

CPU, CUDA = torch.device("cpu"), torch.device("cuda")

SHAPE = (2, 19, 17)

TOKENS = ["Rabs", "N", "N3", "Nsub", "Ndiv5", "Nz", "tanh", "relu", "shrink", "PA4/2", "PA3/2", "PA2", "PM2", "PL2:3/2"]


class Foreign(nn.Module):
    """A module of another package."""

    def forward(self, x):
        return 2 * x


def convnet(text, shape, **parameters):
    architecture, learner = Architecture.parse(text), ConvNet(**parameters)
    stages = learn_stages(architecture, learner, shape, None, seed=0, device=CPU)
    return assemble(architecture, learner, shape, stages)


def with_hidden(network, shape, units=5):
    count = network(noise(1, *shape)).flatten(1).shape[1]
    layer = HiddenLayer(count, units, 0)
    layer.standardisation.fit(network(noise(9, *shape)).flatten(1).detach())
    return nn.Sequential(network, layer)


def run(call, network, x):
    """Features [n, d], and the gradients of a random sum of them by the maps and by every parameter."""
    x = x.clone().requires_grad_()
    features = call(x).flatten(1)
    total = (features * noise(*features.shape, seed=9).to(features.dtype)).sum()
    return [features.detach(), *torch.autograd.grad(total, [x, *network.parameters()], allow_unused=True)]


def assert_alike(network, x, device=CPU):
    """As near to float64 as the modules come in float32, or nearer than five digits."""
    exact, trained = copy.deepcopy(network).double(), TrainedNetwork(network, device)
    features = trained(x)
    assert (features.dtype, features.ndim, len(features)) == (torch.float32, 2, len(x))
    runs = run(trained, network, x), run(network, network, x), run(exact, exact, x.double())
    for found, plain, truth in zip(*runs, strict=True):
        if truth is None:
            assert found is None
            continue
        bound = max(2e-5 * truth.norm(), 20 * (plain - truth).norm())
        assert (found - truth).norm() <= bound, (found - truth).norm() / truth.norm()


@pytest.fixture
def joined(monkeypatch):
    """The filter banks that were joined with what follows them."""
    banks = []

    class Watched(module.PooledResponse):
        def __init__(self, bank, *rest):
            super().__init__(bank, *rest)
            banks.append(bank)

    monkeypatch.setattr(module, "PooledResponse", Watched)
    return banks


@pytest.mark.parametrize(
    "text, count",
    [
        ("5F3-Rabs-N3-PA4/2", 1),
        ("5F3-N3-PA4/2", 1),
        ("5F3-Rabs-PA3/2", 1),
        ("5F3-PA3", 1),
        ("Rabs-N3-5F3-Rabs-N3-PA4/2-relu", 1),
        ("5F3-Rabs-N3-PA4/2 > 8F2:2-Rabs-N3-PA2", 2),
        ("5F3-Rabs-N3-PA4/2 > 8F2:2-Rabs-N3-PA2 > 6F1-PA1", 3),
        ("4F3-Rabs-N3-PA2 >+ 6F3-Rabs-PA3/2", 2),
        ("4F3-Rabs-N3-PA2 >+ 6F3 >+ 3F2-Rabs-PA1", 2),
        ("4F3-Rabs >+ N3-PA2-6F3", 0),
        ("5F3-Rabs-N3-PM4/2", 0),
        ("5F3-relu-PA2", 0),
        ("5F3-Rabs-PFA2/1", 0),
        ("5F3-N3-Rabs-PA2", 0),
        ("5F3", 0),
        ("5C3-tanh-Rabs-N3-PA2", 0),
        ("5C3-relu-PM2 > 4C2-shrink-PL2:3/2", 0),
        ("5C3-relu-PM2 > 4F2-Rabs-N3-PA2/1", 1),
    ],
)
@pytest.mark.parametrize("n", [1, 3])
def test_features_and_gradients_are_those_of_the_modules(text, count, n, joined):
    network = random_network(text, SHAPE)
    assert_alike(network, noise(n, *SHAPE))
    assert len(joined) == count


banks = st.builds("{}{}{}{}".format, st.integers(2, 20), st.sampled_from("FC"), st.integers(1, 4), st.just(""))
around = st.lists(st.sampled_from(TOKENS), max_size=3)
stages = st.builds(lambda before, bank, after: "-".join([*before, bank, *after]), around, banks, around)


@settings(derandomize=True, deadline=None, database=None, max_examples=60)
@given(st.lists(stages, min_size=1, max_size=2), st.sampled_from([" > ", " >+ "]), st.integers(1, 3))
def test_any_architecture_gives_what_its_modules_give(texts, joint, n):
    try:
        network = random_network(joint.join(texts), SHAPE)
    except ArchitectureError:
        assume(False)
    exact, x = copy.deepcopy(network).double(), noise(n, *SHAPE)
    trained = TrainedNetwork(network, CPU)
    found, plain, truth = trained(x), network(x).flatten(1), exact(x.double()).flatten(1)
    # Filters of zero mean and one weight are zero: all that comes after them is rounding.
    assume(float(truth.detach().abs().mean()) > 1e-4)
    assert (found - truth).norm() <= max(2e-5 * truth.norm(), 20 * (plain - truth).norm())


@pytest.mark.parametrize("parameters", [{}, {"activation": "relu"}, {"batch_norm": True}])
def test_a_supervised_convnet(parameters):
    network = convnet("6F5-PA2/2 > 16F3:4-PA2/2 > 12F1", SHAPE, **parameters)
    # While it is trained, batch normalisation shares numbers over the images: their order and number are kept.
    network.train()
    assert_alike(network, noise(4, *SHAPE))


@pytest.mark.parametrize("text", ["5F3-Rabs-N3-PA4/2", "4F3-Rabs-N3-PA2/2 >+ 6F2-PA2/2", "5F3-relu-PM2"])
def test_a_hidden_layer_follows(text, joined):
    network = with_hidden(random_network(text, SHAPE), SHAPE)
    assert_alike(network, noise(3, *SHAPE))
    assert len(joined) == text.count("PA")


def test_stages_of_several_features_stand_anywhere(joined):
    inner = random_network("4F3-Rabs-N3-PA2/2 >+ 6F2-PA2/2", SHAPE)
    count = inner(noise(1, *SHAPE)).shape[1]
    network = nn.Sequential(Foreign(), nn.Sequential(inner), nn.Linear(count, 4), nn.Tanh())
    assert_alike(network, noise(3, *SHAPE))
    assert len(joined) == 2


def test_a_network_of_its_own_class_runs_as_it_is(joined):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = random_network("5F3-Rabs-N3-PA4/2", SHAPE)

        def forward(self, x):
            return self.inner(x.flip(3)).square()

    assert_alike(Own(), noise(2, *SHAPE))
    assert joined == []


def test_parameters_are_those_of_the_moment():
    network = random_network("5F3-Rabs-N3-PA4/2 > 4C2-relu", SHAPE)
    trained, x = TrainedNetwork(network, CPU), noise(2, *SHAPE)
    before = trained(x)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1)
    assert not torch.allclose(trained(x), before)
    assert torch.equal(trained(x), TrainedNetwork(network, CPU)(x))


def test_on_cuda_nothing_is_joined_and_in_float32_the_modules_run_as_they_are(joined):
    network, x = random_network("5F3-Rabs-N3-PA4/2 >+ 4C2-relu-PM2", SHAPE), noise(2, *SHAPE)
    found, plain = run(TrainedNetwork(network, CUDA), network, x), run(network, network, x)
    assert all(torch.equal(one, other) for one, other in zip(found, plain, strict=True))
    assert joined == []


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16", "fp16"])
@pytest.mark.parametrize("before", [False, True])
def test_convolutions_on_cuda_round_to_tf32_only_if_that_is_asked_for(precision, before):
    cudnn, network = torch.backends.cudnn, random_network("2F3", SHAPE)
    with cudnn.flags(enabled=True, benchmark=True, allow_tf32=before):
        with TrainedNetwork(network, CUDA, precision).set_precision():
            assert (cudnn.allow_tf32, cudnn.enabled, cudnn.benchmark) == (precision == "tf32", True, True)
        assert cudnn.allow_tf32 == before
        with TrainedNetwork(network, CPU).set_precision():
            assert cudnn.allow_tf32 == before


@pytest.mark.parametrize(
    "part, is_per_image, has_batch_statistics",
    [
        (nn.Identity(), True, False),
        (nn.Conv2d(5, 4, 1), True, False),
        (nn.GroupNorm(1, 5), True, False),
        (MapDropout(0.5), True, False),
        (nn.BatchNorm2d(5), False, True),
        (nn.SyncBatchNorm(5), False, True),
        (nn.Sequential(nn.ReLU(), nn.Sequential(nn.BatchNorm2d(5))), False, True),
        (nn.InstanceNorm2d(5, track_running_stats=True), False, False),
        (nn.Dropout(0.5), False, False),
        (nn.Dropout2d(0.5), False, False),
        (nn.AlphaDropout(0.5), False, False),
        (nn.RReLU(), False, False),
        (nn.FractionalMaxPool2d(2, output_size=2), False, False),
        (nn.TransformerEncoderLayer(4, 2), False, False),
        (nn.LSTM(4, 2, 2, dropout=0.5), False, False),
        (Foreign(), False, False),
    ],
)
def test_what_is_known_of_modules(part, is_per_image, has_batch_statistics):
    network = nn.Sequential(random_network("5F3-Rabs-N3-PA4/2", SHAPE), part)
    trained = TrainedNetwork(network, CPU)
    assert (trained.is_per_image, trained.has_batch_statistics) == (is_per_image, has_batch_statistics)


@pytest.mark.parametrize("text", ["64F9-Rabs-N-PA10/5 > 256F9:16-Rabs-N-PA6/4", "4F3 >+ 4C2-relu-PM2 > 3F2-PL2:3/2"])
def test_stages_treat_each_image_by_itself(text):
    assert TrainedNetwork(random_network(text, (1, 143, 143)), CPU).is_per_image
