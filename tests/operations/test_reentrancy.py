"""Which classes of modules several threads may run at once: those of torch.nn, and those that declare it."""

import inspect
from importlib import import_module

import pytest
from helpers.networks import random_network
from torch import nn

from featbench.devices.selection import select_operations
from featbench.operations.fused_network import FusedNetwork, is_reentrant_class
from featbench.stages.encoders import FilterBank
from featbench.stages.stage import MultiStage

FILES = (
    *(f"stages.{name}" for name in ("encoders", "normalization", "pooling", "stage")),
    *("learning.unrolled", "refinement.classifier_layer", "plugins.convnet", "plugins.sift"),
)
"""Files whose modules keep nothing of a call."""


def is_abstract(cls):
    return any(getattr(value, "__isabstractmethod__", False) for value in vars(cls).values())


MODULES = {
    f"{file}.{name}": cls
    for file in FILES
    for name, cls in inspect.getmembers(import_module(f"featbench.{file}"), inspect.isclass)
    if issubclass(cls, nn.Module) and cls.__module__ == f"featbench.{file}" and not is_abstract(cls)
}
"""Their classes that can be run; of an abstract one only those that are made from it."""


def test_every_file_has_its_modules():
    counts = {file: sum(name.rpartition(".")[0] == file for name in MODULES) for file in FILES}
    assert counts == dict(zip(FILES, (4, 1, 1, 4, 3, 3, 1, 1), strict=True))


@pytest.mark.parametrize("name", MODULES)
def test_several_threads_may_run_our_modules(name):
    assert is_reentrant_class(MODULES[name])


@pytest.mark.parametrize("cls", [nn.Conv2d, nn.ReLU, nn.Sequential, nn.BatchNorm2d])
def test_several_threads_may_run_the_modules_of_torch(cls):
    assert is_reentrant_class(cls)


class Declared(nn.Module):
    reentrant = True


class Derived(Declared):
    def forward(self, x):
        return x


class DerivedAndDeclared(Derived):
    reentrant = True


class Withdrawn(Declared):
    reentrant = False


class FromTorch(nn.ReLU):
    pass


class FromOurs(FilterBank):
    pass


@pytest.mark.parametrize(
    "cls, expected",
    [
        (nn.Module, True),
        (Declared, True),
        (Derived, False),
        (DerivedAndDeclared, True),
        (Withdrawn, False),
        (FromTorch, False),
        (FromOurs, False),
    ],
)
def test_a_class_speaks_for_itself_alone(cls, expected):
    assert is_reentrant_class(cls) is expected


@pytest.mark.parametrize("inner, expected", [(Declared, True), (Derived, False)])
@pytest.mark.parametrize(
    "wrap", [lambda module: module, nn.Sequential, lambda module: nn.Sequential(MultiStage([nn.ReLU(), module], [1]))]
)
def test_a_network_counts_only_with_all_that_is_inside_it(inner, expected, wrap):
    network = nn.Sequential(random_network("4F3-Rabs", (1, 9, 9)), wrap(inner()))
    assert FusedNetwork(network, select_operations("cpu")).is_reentrant is expected
