"""The gradient of a batch in parts and pieces against plain autograd over all of it in float64."""

import copy
import logging

import numpy as np
import pytest
import torch
from helpers.networks import noise, random_network
from torch import nn
from torch.nn import functional

from featbench.errors import DeviceError
from featbench.learning.networks import assemble, learn_stages
from featbench.operations.fused_network import FusedNetwork
from featbench.operations.reference import Reference
from featbench.plugins.convnet import ConvNet
from featbench.refinement.augmentation import Augmentation
from featbench.refinement.classifier_layer import ClassifierLayer, HiddenLayer
from featbench.refinement.gradients import MAPS_KEPT, DivergedError, Examples, Gradients
from featbench.refinement.random_numbers import drawing_from
from featbench.refinement.trained_network import TrainedNetwork
from featbench.stages.architecture import Architecture
from featbench.system.seeds import derive_seed

CPU = torch.device("cpu")
SHAPE, CLASSES = (1, 19, 18), 4
ARCHITECTURE = "6F3-Rabs-N3-PA4/2 > 16F2:3-Rabs-N3-PA2"
DRAWS = [{"dropout": 0.5}, {"dropout": 0.5, "activation": "relu"}]


def convnet(**parameters):
    architecture, learner = Architecture.parse("6F3-PA2 > 8F2-PA2"), ConvNet(**parameters)
    stages = learn_stages(architecture, learner, SHAPE, None, seed=0, device=CPU)
    return assemble(architecture, learner, SHAPE, stages).train()


def examples(n=10):
    return Examples(noise(n, *SHAPE, seed=n), torch.arange(n) * 7 % CLASSES)


def layer_of(network):
    with torch.no_grad():
        features = copy.deepcopy(network).eval()(noise(40, *SHAPE)).flatten(1)
    layer = ClassifierLayer(features.shape[1], CLASSES)
    layer.standardisation.fit(features)
    with torch.no_grad():
        layer.linear.weight.copy_(noise(*layer.linear.weight.shape))
        layer.linear.bias.copy_(noise(CLASSES, seed=1))
    return layer


def grads(network, layer):
    return [parameter.grad for parameter in (*network.parameters(), *layer.parameters())]


def run(network, layer, batch, *, seed=5, scale=1.0, images=None, augmentation=None, pieces=1):
    """The loss, and the gradients of all parameters."""
    gradients = Gradients(network, layer, CPU, augmentation=augmentation)
    gradients.pieces = pieces
    loss = gradients(batch, np.arange(len(batch)) if images is None else images, seed, scale)
    return loss, grads(network, layer)


def plain(network, layer, batch, dtype=torch.float64):
    network, layer = copy.deepcopy(network).to(dtype), copy.deepcopy(layer).to(dtype)
    for parameter in (*network.parameters(), *layer.parameters()):
        parameter.grad = None
    loss = functional.cross_entropy(layer(network(batch.maps.to(dtype))), batch.labels)
    loss.backward()
    return float(loss.detach()), grads(network, layer)


def assert_near(found, expected, tolerance=1e-5):
    assert found[0] == pytest.approx(expected[0], rel=tolerance)
    # What is zero in truth, as the gradient by a bias before batch normalisation, is rounding of the others' size.
    whole = max(float(one.norm()) for one in expected[1] if one is not None)
    for one, other in zip(found[1], expected[1], strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert one.shape == other.shape
            assert (one - other).norm() <= tolerance * max(float(other.norm()), 0.1 * whole)


def assert_same_bits(found, expected):
    assert found[0] == expected[0]
    for one, other in zip(found[1], expected[1], strict=True):
        assert torch.equal(one, other)


@pytest.fixture
def threads():
    """Set the number of torch's threads; it is given back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


class Foreign(nn.Module):
    """A module of another package, which has memory for so many images."""

    def __init__(self, room=10**9):
        super().__init__()
        self.factor, self.room = nn.Parameter(torch.tensor([1.5])), room

    def forward(self, x):
        if len(x) > self.room:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
        return self.factor * x


def limited(monkeypatch, room, error=MemoryError):
    """Let no more images than these fit into the memory, however they are computed."""
    compute = TrainedNetwork.__call__

    def call(self, x):
        if len(x) > room:
            raise error
        return compute(self, x)

    monkeypatch.setattr(TrainedNetwork, "__call__", call)


def hidden():
    network = random_network(ARCHITECTURE, SHAPE)
    count = network(noise(1, *SHAPE)).flatten(1).shape[1]
    layer = HiddenLayer(count, 5, 0)
    layer.standardisation.fit(network(noise(20, *SHAPE)).flatten(1).detach())
    return nn.Sequential(network, layer)


NETWORKS = {
    "two stages": lambda: random_network(ARCHITECTURE, SHAPE),
    "several stages' maps": lambda: random_network("4F3-Rabs-N3-PA2 >+ 6F2-PM2", SHAPE),
    "hidden layer": hidden,
    "relu": lambda: convnet(activation="relu"),
    "batch normalisation": lambda: convnet(batch_norm=True),
    "foreign": lambda: nn.Sequential(random_network(ARCHITECTURE, SHAPE), Foreign()),
}


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("n", [2, 5, 10, 33])
@pytest.mark.parametrize("count", [1, 2])
def test_gradients_are_those_of_plain_autograd(kind, n, count, threads):
    network = NETWORKS[kind]()
    layer = layer_of(network)
    threads(count)
    expected = plain(network, layer, examples(n))
    assert_near(run(network, layer, examples(n)), expected)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_batch_may_have_fewer_images_than_parts(n):
    network = random_network(ARCHITECTURE, SHAPE)
    layer = layer_of(network)
    assert_near(run(network, layer, examples(n)), plain(network, layer, examples(n)))


def test_gradients_of_the_last_batch_are_forgotten():
    network = random_network(ARCHITECTURE, SHAPE)
    layer = layer_of(network)
    gradients = Gradients(network, layer, CPU)
    first, _, last = (
        (gradients(examples(n), np.arange(n), 0), [grad.clone() for grad in grads(network, layer)]) for n in (7, 10, 7)
    )
    assert_same_bits(first, last)


def test_parameters_that_are_frozen_or_not_used_get_no_gradient():
    network = random_network(ARCHITECTURE, SHAPE)
    network.get_parameter("1.0.0.weight").requires_grad_(False)
    layer = layer_of(network)
    network.register_parameter("unused", nn.Parameter(torch.ones(2)))
    for pieces in (1, 2):
        found = run(network, layer, examples(), pieces=pieces)
        named = zip((name for name, _ in network.named_parameters()), found[1], strict=False)
        assert {name for name, grad in named if grad is None} == {"unused", "1.0.0.weight"}


@pytest.mark.parametrize("n", [3, 10, 16, 21])
@pytest.mark.parametrize(
    "make",
    [lambda: random_network(ARCHITECTURE, SHAPE), hidden, *(lambda given=given: convnet(**given) for given in DRAWS)],
)
def test_the_bits_are_the_same_for_any_number_of_threads(make, n, threads):
    network = make()
    layer, found = layer_of(network), []
    for count in (1, 2, 3):
        threads(count)
        found.append(run(network, layer, examples(n), augmentation=Augmentation(shift=2, flip=True)))
        assert torch.get_num_threads() == count
    assert_same_bits(found[1], found[0])
    assert_same_bits(found[2], found[0])


def test_maps_of_full_size_are_computed_in_smaller_parts_with_the_same_bits(threads):
    shape, parts, compute = (1, 143, 143), [], TrainedNetwork.__call__
    network = random_network("64F9-Rabs-N-PA10/5", shape)
    layer, batch = ClassifierLayer(64 * 26 * 26, CLASSES), Examples(noise(9, *shape), torch.arange(9) % CLASSES)
    nn.init.normal_(layer.linear.weight, generator=torch.Generator().manual_seed(0))

    class Watched(TrainedNetwork):
        def __call__(self, x):
            parts.append(len(x))
            return compute(self, x)

    found = []
    for count in (1, 2):
        threads(count)
        gradients = Gradients(network, layer, CPU)
        gradients.trained.__class__ = Watched
        found.append((gradients(batch, np.arange(9), 0), [grad.clone() for grad in grads(network, layer)]))
    assert parts == 18 * [1]
    assert_same_bits(found[1], found[0])


@pytest.mark.parametrize("error", [MemoryError, RuntimeError("DefaultCPUAllocator: can't allocate memory: 1 bytes")])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("n, room, pieces", [(10, 1, 4), (10, 2, 2), (9, 2, 2), (8, 2, 1), (5, 1, 2)])
def test_where_memory_runs_out_the_gradients_of_pieces_are_added_up(
    error, count, n, room, pieces, threads, monkeypatch, caplog
):
    network = random_network(ARCHITECTURE, SHAPE)
    layer = layer_of(network)
    whole, exact = run(network, layer, examples(n)), plain(network, layer, examples(n))
    threads(count)
    limited(monkeypatch, room, error)
    gradients = Gradients(network, layer, CPU)
    with caplog.at_level(logging.WARNING, "featbench"):
        found = gradients(examples(n), np.arange(n), 5), grads(network, layer)
    assert gradients.pieces == pieces
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == pieces.bit_length() - 1
    assert all(f"a batch of {n} images does not fit into the memory of cpu" in text for text in warnings)
    assert_near(found, whole, 2e-6)
    assert_near(found, exact)


def test_later_batches_are_divided_from_the_start(caplog):
    network = nn.Sequential(random_network(ARCHITECTURE, SHAPE), Foreign(room=3))
    layer = layer_of(nn.Sequential(network[0]))
    gradients = Gradients(network, layer, CPU)
    for n in (10, 12, 9, 3, 1):
        found = gradients(examples(n), np.arange(n), 0), grads(network, layer)
        network[1].room = 10**9
        assert_near(found, plain(network, layer, examples(n)))
        network[1].room = 3
    assert gradients.pieces == 4
    assert len(caplog.records) == 2


def test_a_batch_that_cannot_fit_is_halved_before_anything_is_taken(monkeypatch, caplog):
    # Linux grants more memory than it has, and kills the process that uses it: no error could be caught.
    network = random_network(ARCHITECTURE, SHAPE)
    layer = layer_of(network)
    expected = plain(network, layer, examples(10))
    monkeypatch.setattr("featbench.system.memory.UNCHECKED_BYTES", 0)
    one = MAPS_KEPT * 4 * FusedNetwork(network, Reference()).find_largest_maps(noise(1, *SHAPE))
    monkeypatch.setattr("featbench.system.memory.available_memory", lambda _: 3 * one)
    gradients = Gradients(network, layer, CPU)
    assert_near((gradients(examples(10), np.arange(10), 0), grads(network, layer)), expected)
    assert gradients.pieces == 4
    assert len(caplog.records) == 2


def test_batch_normalisation_needs_its_batch_whole(monkeypatch):
    network = convnet(batch_norm=True)
    layer = layer_of(network)
    limited(monkeypatch, 4)
    with pytest.raises(DeviceError, match=r"batch of 10 images .* batch normalisation .* --refine batch=8"):
        run(network, layer, examples(10))
    assert run(network, layer, examples(4))[0] > 0


@pytest.mark.parametrize("n", [1, 3, 8])
def test_one_image_that_does_not_fit_is_an_error(n, monkeypatch):
    network = random_network(ARCHITECTURE, SHAPE)
    limited(monkeypatch, 0, MemoryError("17 GiB are needed"))
    with pytest.raises(DeviceError, match=r"one image does not fit .*cpu.*smaller.*17 GiB are needed"):
        run(network, layer_of(network), examples(n))


def test_other_errors_are_raised_as_they_are(monkeypatch):
    network = random_network(ARCHITECTURE, SHAPE)
    limited(monkeypatch, 0, RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        run(network, layer_of(network), examples())


class Shared(nn.Module):
    """Parameters whose gradients are one tensor, or one number seen as many."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Parameter(noise(9)), nn.Parameter(noise(9, seed=1))
        self.summed = nn.Parameter(noise(9, seed=2))

    def forward(self, x):
        return x.flatten(1)[:, :9] + (self.one + self.other) * self.summed.sum()


@pytest.mark.parametrize("pieces", [1, 2, 3])
def test_gradients_that_share_memory_are_added_up_apart(pieces):
    network = Shared()
    layer = layer_of(network)
    found = run(network, layer, examples(), pieces=pieces)
    assert_near(found, plain(network, layer, examples()))
    found[1][0].mul_(2)
    assert not torch.equal(found[1][0], found[1][1])
    found[1][2].mul_(2)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_scale_of_a_power_of_two_scales_every_bit(kind):
    network = NETWORKS[kind]()
    layer = layer_of(network)
    loss, once = run(copy.deepcopy(network), copy.deepcopy(layer), examples())
    scaled_loss, scaled = run(network, layer, examples(), scale=1024.0)
    assert scaled_loss == loss
    for one, other in zip(scaled, once, strict=True):
        assert torch.equal(one, 1024 * other)


@pytest.mark.parametrize("count", [1, 2])
def test_a_loss_that_is_not_finite_is_an_error(count, threads):
    network, batch = random_network(ARCHITECTURE, SHAPE), examples()
    layer = layer_of(network)
    threads(count)
    batch.maps[7, 0, 4, 4] = float("nan")
    with pytest.raises(DivergedError):
        run(network, layer, batch)
    with torch.no_grad():
        layer.linear.bias.copy_(torch.tensor([3e38, -3e38, 0, 0]))
    with pytest.raises(DivergedError):
        run(network, layer, examples())


@pytest.mark.parametrize("pieces", [1, 3])
def test_labels_stay_with_their_images(pieces):
    network, batch = random_network(ARCHITECTURE, SHAPE), examples(11)
    layer = layer_of(network)
    order = torch.from_numpy(np.random.default_rng(0).permutation(11))
    expected = run(network, layer, batch)
    assert_near(run(copy.deepcopy(network), copy.deepcopy(layer), batch[order], pieces=pieces), expected)
    wrong = run(copy.deepcopy(network), copy.deepcopy(layer), Examples(batch.maps, batch.labels[order]))
    assert abs(wrong[0] - expected[0]) > 1e-3


DISTORTIONS = Augmentation(shift=2, rotate=20, scale=0.2, shear=0.1, elastic=5, smooth=2, flip=True)


@pytest.mark.parametrize("kind", ["two stages", "foreign"])
@pytest.mark.parametrize("pieces", [1, 3])
def test_distortions_depend_on_seed_and_image_alone(kind, pieces):
    network, batch = NETWORKS[kind](), examples(11)
    layer, images = layer_of(network), np.arange(11) * 13
    distorted = Examples(DISTORTIONS.distort(batch.maps, images, derive_seed(8, "distort")), batch.labels)
    expected = run(copy.deepcopy(network), copy.deepcopy(layer), distorted, seed=3, pieces=pieces)
    assert_same_bits(
        run(network, layer, batch, seed=8, images=images, augmentation=DISTORTIONS, pieces=pieces), expected
    )
    # In another order, so in other parts, each image is distorted as before.
    order = np.random.default_rng(1).permutation(11)
    shuffled = batch[torch.from_numpy(order)]
    assert_near(run(network, layer, shuffled, seed=8, images=images[order], augmentation=DISTORTIONS), expected)
    for other in ({"seed": 9, "images": images}, {"seed": 8, "images": images + 1}):
        assert run(network, layer, batch, augmentation=DISTORTIONS, **other)[0] != expected[0]


def test_no_distortion_leaves_maps_as_they_are():
    network = random_network(ARCHITECTURE, SHAPE)
    layer = layer_of(network)
    expected = run(copy.deepcopy(network), copy.deepcopy(layer), examples())
    assert_same_bits(run(network, layer, examples(), augmentation=Augmentation()), expected)


@pytest.mark.parametrize("given", DRAWS)
def test_dropout_is_drawn_for_each_part_by_its_first_image(given):
    network, batch = convnet(**given), examples(4)
    layer, images = layer_of(network), np.array([30, 10, 20, 40])
    found = run(network, layer, batch, seed=6, images=images)
    rows = []
    for position, image in enumerate(images):
        with drawing_from(derive_seed(6, image)):
            rows.append(network(batch.maps[position : position + 1]).flatten(1))
    loss = functional.cross_entropy(layer(torch.cat(rows)), batch.labels)
    expected = torch.autograd.grad(loss, [*network.parameters(), *layer.parameters()])
    assert_near(found, (float(loss.detach()), expected))
    assert run(network, layer, batch, seed=7, images=images)[0] != found[0]


def test_torch_s_own_dropout_is_drawn_by_the_seed_and_leaves_global_numbers_alone():
    network = nn.Sequential(random_network(ARCHITECTURE, SHAPE), nn.Dropout(0.5)).train()
    layer = layer_of(network)
    before = torch.random.get_rng_state()
    found = [run(copy.deepcopy(network), copy.deepcopy(layer), examples(), seed=seed) for seed in (1, 1, 2)]
    assert_same_bits(found[0], found[1])
    assert found[2][0] != found[0][0]
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("training", [False, True])
def test_the_network_stays_in_the_mode_it_is_in(training):
    network = convnet(dropout=0.5).train(training)
    layer = layer_of(network)
    run(network, layer, examples())
    assert all(module.training == training for module in network.modules())
