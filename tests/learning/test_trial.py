"""The trial of a learner's network: each breach of the contract is named, and what keeps it passes."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from featbench.errors import PluginError
from featbench.learning.learner import FilterLearner, NetworkLearner
from featbench.learning.networks import learn_network, learn_stages
from featbench.learning.trial import has_foreign_modules, try_network
from featbench.stages.architecture import Architecture

CPU = torch.device("cpu")
SHAPE = (1, 8, 9)


class Net(nn.Module):
    """A convolution, and whatever `after` makes of its rows; `before` is given the maps."""

    def __init__(self, after=lambda y: y, before=lambda x: x):
        super().__init__()
        self.conv, self.after, self.before = nn.Conv2d(1, 4, 3), after, before
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.after(self.conv(self.before(x)).relu().flatten(1))


@dataclass(frozen=True)
class Whole(NetworkLearner):
    """Gives a network that a test puts here."""

    name: ClassVar[str] = "whole"
    family: ClassVar[str] = "fixed"
    make: ClassVar = Net

    def network(self, shape, maps, seed):
        return type(self).make()


def learn(make, shape=SHAPE, **attributes):
    learner = type("Learner", (Whole,), {"make": staticmethod(make), **attributes})
    return learn_network(learner(), shape, None, seed=0, device=CPU)


class Counting(Net):
    def forward(self, x):
        return super().forward(x) + self.calls


class Remembering(nn.BatchNorm2d):
    """Goes on with its running statistics in evaluation mode too."""

    def __init__(self):
        super().__init__(1)

    def forward(self, x):
        return functional.batch_norm(x, self.running_mean, self.running_var, training=True)


class Stale(Net):
    """Adds what it was given first."""

    first = None

    def forward(self, x):
        self.first = x.mean() if self.first is None else self.first
        return super().forward(x - self.first)


MIXING = {
    "subtracts the mean of the batch": lambda: Net(lambda y: y - y.mean(0)),
    "divides by the deviation of the batch": lambda: Net(lambda y: y / (y.std(0, correction=0) + 1)),
    "divides by the number of images": lambda: Net(lambda y: y / len(y)),
    "adds up the images before": lambda: Net(lambda y: y.cumsum(0)),
    "turns the batch around": lambda: Net(lambda y: y.flip(0)),
    "rolls the batch": lambda: Net(lambda y: y.roll(1, 0)),
    "sorts the batch": lambda: Net(lambda y: y.sort(0).values),
    "softmax over the batch": lambda: Net(lambda y: y.softmax(0)),
    "scales by the largest of the batch": lambda: Net(lambda y: y / y.max()),
    "scales maps by the batch": lambda: Net(before=lambda x: x / x.abs().max()),
    "attends to the other images": lambda: Net(lambda y: (y @ y.T / 9).softmax(1) @ y),
    "gives the first image to the others": lambda: Net(lambda y: y + y[:1]),
    "batch norm without running statistics": lambda: nn.BatchNorm2d(1, track_running_stats=False),
    "batch norm in training for good": Remembering,
    "seeds its noise itself": lambda: Net(lambda y: torch.manual_seed(0) and y + torch.randn_like(y)),
}


@pytest.mark.parametrize("how", MIXING)
def test_a_network_that_mixes_the_images_of_a_batch_is_refused(how):
    with pytest.raises(PluginError, match=r"^the network of whole gives a map other features alone than beside others"):
        learn(MIXING[how])


DRAWING = {
    "torch": lambda: Net(lambda y: y + torch.randn(len(y), 1)),
    "numpy": lambda: Net(lambda y: y + float(np.random.random())),
    "a generator without seed": lambda: Net(lambda y: y + float(np.random.default_rng().random())),
    "dropout for good": lambda: Net(functional.dropout),
    "alpha dropout": lambda: Net(lambda y: functional.alpha_dropout(y, training=True)),
    "rrelu": lambda: Net(lambda y: functional.rrelu(-y, training=True)),
    "gumbel": lambda: Net(lambda y: functional.gumbel_softmax(y)),
    "a random order": lambda: Net(lambda y: y[:, torch.randperm(y.shape[1])]),
    "it counts": Counting,
    "it adds to its weights": lambda: Net(lambda y: y * 1.1 ** (Net.tick())),
}


def _tick():
    Net.ticks = getattr(Net, "ticks", 0) + 1
    return Net.ticks


Net.tick = staticmethod(_tick)


@pytest.mark.parametrize("how", DRAWING)
def test_a_network_that_draws_or_remembers_is_refused(how):
    with pytest.raises(PluginError, match="the network of whole gives the same maps other features the second time"):
        learn(DRAWING[how])


CHANGING = {
    "mul_": lambda x: x.mul_(2),
    "relu_": functional.relu_,
    "zero_": lambda x: x.zero_(),
    "one value": lambda x: x.index_fill_(3, torch.tensor([0]), 0.0),
    "a slice": lambda x: x.__setitem__((0, 0), 1.0) or x,
    "through numpy": lambda x: x.numpy().__iadd__(1) is None or x,
    "sub_ of its mean": lambda x: x.sub_(x.mean((1, 2, 3), keepdim=True)),
    "clamp_": lambda x: x.clamp_(-0.1, 0.1),
    "in-place relu": nn.ReLU(inplace=True),
    "in-place hardtanh": nn.Hardtanh(inplace=True),
}


@pytest.mark.parametrize("how", CHANGING)
def test_a_network_that_changes_its_maps_is_refused(how):
    with pytest.raises(PluginError, match="the network of whole changes the maps that it is given"):
        learn(lambda: Net(before=CHANGING[how]))


GIVING = {
    "a list": (lambda y: [y], "gives a list, not a tensor"),
    "a tuple": (lambda y: (y, y), "gives a tuple, not a tensor"),
    "a dict": (lambda y: {"features": y}, "gives a dict, not a tensor"),
    "nothing": (lambda y: None, "gives a NoneType, not a tensor"),
    "an array": (lambda y: y.numpy(), "gives a ndarray, not a tensor"),
    "double": (lambda y: y.double(), "gives torch.float64, not torch.float32"),
    "half": (lambda y: y.half(), "gives torch.float16, not"),
    "integers": (lambda y: y.argmax(1, keepdim=True), "gives torch.int64, not"),
    "complex": (lambda y: y.to(torch.complex64), "gives torch.complex64, not"),
    "a number an image": (lambda y: y.sum(1), r"gives \[3\] for 3 images; it must be \[3, d\] or"),
    "three sides": (lambda y: y[:, None], r"gives \[3, 1, 168\] for 3 images"),
    "one image": (lambda y: y.mean(0, keepdim=True), r"gives \[1, 168\] for 3 images"),
    "twice as many": (lambda y: torch.cat([y, y]), r"gives \[6, 168\] for 3 images"),
    "no values": (lambda y: y[:, :0], "has no values"),
    "NaN": (lambda y: y.sub(99).log(), "gives features that are not finite"),
    "infinity": (lambda y: (y + 99).exp().square(), "gives features that are not finite"),
    "an error": (lambda y: y[:, 99999], r"on maps \[3, 1, 8, 9\] raises IndexError"),
    "an exit": (lambda y: exit(3), "raises SystemExit: 3"),
}


@pytest.mark.parametrize("how", GIVING)
def test_what_are_no_features_is_refused(how):
    after, why = GIVING[how]
    with pytest.raises(PluginError, match=f"the network of whole.* {why}"):
        learn(lambda: Net(after))


@pytest.mark.parametrize("made", [None, 3, "net", [], np.zeros(3), nn.Conv2d, len, {}, torch.zeros(3), nn.Parameter()])
def test_what_is_no_module_is_refused(made):
    with pytest.raises(PluginError, match=r"the network of whole is a .*, not a torch.nn.Module"):
        learn(lambda: made)


GOOD = {
    "as it is": Net,
    "dropout": lambda: nn.Sequential(Net(), nn.Dropout()),
    "batch norm": lambda: nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 2, 3)),
    "group norm": lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4)),
    "layer norm": lambda: nn.Sequential(nn.Flatten(), nn.LayerNorm(72)),
    "lazy": lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(5)),
    "the identity": nn.Identity,
    "constant": lambda: Net(lambda y: y * 0),
    "relu after": lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True)),
    "large": lambda: Net(lambda y: y * 1e20),
    "small": lambda: Net(lambda y: y * 1e-20),
}


@pytest.mark.parametrize("how", GOOD)
def test_a_network_that_keeps_the_contract_passes_in_evaluation_mode(how):
    assert not learn(GOOD[how]).training


def test_the_trial_leaves_generators_and_weights_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.manual_seed(3)
    try_network("it", network, SHAPE)
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


def test_a_learner_of_rows_gives_as_many_numbers_for_any_size():
    pooled = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert learn(lambda: pooled, gives="row") is pooled
    with pytest.raises(PluginError, match=r"gives maps \[3, 3, 6, 7\], and declares that it gives a row"):
        learn(lambda: nn.Conv2d(1, 3, 3), gives="row")
    with pytest.raises(PluginError, match="gives 168 numbers for an image and 320 for a larger one"):
        learn(Net, gives="row")


class Unsaved(Net):
    """Holds a number that its state does not."""

    def __init__(self):
        super().__init__(lambda y: y * self.factor)
        self.factor = float(torch.rand(()))


@pytest.mark.parametrize(("make", "fits"), [(Net, True), (Unsaved, False)])
def test_a_network_that_is_built_again_must_be_the_same(make, fits):
    def rebuild(self, shape, state):
        network = make()
        network.load_state_dict(state)
        return network

    if fits:
        learn(make, rebuild=rebuild)
        return
    with pytest.raises(PluginError, match="draws numbers that its state_dict does not hold"):
        learn(make, rebuild=rebuild)


@dataclass(frozen=True)
class Encoding(FilterLearner):
    """A learner of filters with an encoder of its own."""

    name: ClassVar[str] = "encoding"
    family: ClassVar[str] = "fixed"
    after: ClassVar = staticmethod(lambda y: y)

    def filters(self, bank, patches, seed):
        return torch.randn(bank.shape)

    def encoder(self, filters, table):
        return _Encoder(filters, type(self).after)


class _Encoder(nn.Module):
    def __init__(self, filters, after):
        super().__init__()
        self.weight, self.after = nn.Parameter(filters.weight), after

    def forward(self, x):
        return self.after(functional.conv2d(x, self.weight))


@pytest.mark.parametrize(
    ("after", "why"),
    [(lambda y: y - y.mean(0), "depends on the batch"), (lambda y: y + torch.rand(()), "it draws or remembers")],
)
def test_an_encoder_of_a_plugin_is_tried_in_its_stage(after, why):
    learner = type("Learner", (Encoding,), {"after": staticmethod(after)})
    with pytest.raises(PluginError, match=f"stage 1 of encoding .*{why}"):
        learn_stages(Architecture.parse("4F3-Rabs"), learner(), SHAPE, None, seed=0, device=CPU)
    learn_stages(Architecture.parse("4F3-Rabs"), Encoding(), SHAPE, None, seed=0, device=CPU)


def test_modules_are_foreign_if_neither_featbench_nor_torch_has_them():
    assert has_foreign_modules(nn.Sequential(nn.ReLU(), Net()))
    assert not has_foreign_modules(nn.Sequential(nn.ReLU(), nn.Conv2d(1, 1, 1)))
