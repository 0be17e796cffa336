import numpy as np
import pytest

from featbench.data.maps import Maps, Preprocessing
from featbench.data.prepare import PackedImages
from featbench.learning.networks import find_refusal
from featbench.plugins.convnet import ConvNet
from featbench.protocols.caltech101 import CALTECH101_30
from featbench.protocols.caltech101_83 import CALTECH101_83
from featbench.protocols.mnist import MNIST
from featbench.protocols.norb import NORB
from featbench.registry import Registry
from featbench.stages.architecture import Architecture

INPUTS = {"mnist": (28, 28), "norb": (96, 96), "caltech101-83": (91, 60)}


def entering(protocol):
    return Maps(PackedImages.pack([np.zeros(INPUTS[protocol.name], dtype=np.uint8)]), protocol.preprocessing).shape


PROTOCOLS = pytest.mark.parametrize("protocol", [MNIST, NORB, CALTECH101_83], ids=lambda protocol: protocol.name)


@PROTOCOLS
def test_protocols_are_registered_with_their_data_set_and_learners(protocol):
    registry = Registry()
    assert registry.protocol(protocol.name) is protocol
    assert registry.dataset(protocol.dataset).name == protocol.dataset
    assert [registry.learner(name).name for name in protocol.features] == ["random", "psd"]


@PROTOCOLS
def test_the_default_architecture_is_one_of_the_names(protocol):
    assert protocol.architecture == next(iter(protocol.architectures.values()))


@pytest.mark.parametrize(
    ("protocol", "name", "shapes"),
    [
        (MNIST, "jarrett", [(32, 12, 12), (64, 4, 4)]),
        (MNIST, "lenet5", [(6, 12, 12), (16, 4, 4), (120, 1, 1), (84, 1, 1)]),
        (MNIST, "wide", [(32, 12, 12), (64, 4, 4), (256, 1, 1)]),
        # Jarrett et al. 2009: 96 > 92 > 23 > 18 > 6, 864 features.
        (NORB, "jarrett", [(8, 23, 23), (24, 6, 6)]),
        (NORB, "jarrett:PA", [(8, 23, 23), (24, 6, 6)]),
        (NORB, "plain", [(8, 23, 23), (24, 6, 6), (100, 1, 1)]),
        # The talks: 83×83 > 64@75×75 > 64@14×14 > 256@6×6 > 256@1×1.
        (CALTECH101_83, "talk", [(64, 14, 14), (256, 1, 1)]),
        (CALTECH101_83, "relu", [(32, 39, 39), (64, 17, 17), (128, 6, 6), (256, 1, 1)]),
    ],
)
def test_shapes_are_those_of_the_papers(protocol, name, shapes):
    architecture = Architecture.parse(protocol.architectures[name])
    assert list(architecture.shapes(entering(protocol))) == shapes
    assert find_refusal(architecture, ConvNet(), entering(protocol)) is None


def test_mnist_is_what_it_was():
    assert MNIST.architecture == "32F5-Rabs-N-PA2/2 > 64F5:16-Rabs-N-PA2/2"
    assert (MNIST.train_per_class, MNIST.test, MNIST.metric) == (100, "fixed", "accuracy")


def test_norb_tests_on_its_own_test_images_of_unseen_toys():
    assert (NORB.train_per_class, NORB.test, NORB.metric) == (100, "fixed", "accuracy")
    assert NORB.preprocessing == Preprocessing(standardise=True)
    assert entering(NORB) == (1, 96, 96)


def test_maps_of_83_differ_from_those_of_143_in_their_size_alone():
    assert entering(CALTECH101_83) == (1, 83, 83)
    same = ("dataset", "train_per_class", "validation_fraction", "test", "test_per_class", "draws", "metric")
    assert [getattr(CALTECH101_83, name) for name in same] == [getattr(CALTECH101_30, name) for name in same]
    assert CALTECH101_83.preprocessing == Preprocessing(91, True, 1.0, True)
    assert CALTECH101_83.architecture == CALTECH101_30.architectures["two:Rabs-N-PA"]
