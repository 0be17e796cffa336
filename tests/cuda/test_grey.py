"""Images that become maps on the device, against those that become maps before they get there."""

import numpy as np
import pytest
import torch
from helpers.networks import random_network

pytest.importorskip("triton", reason="the kernels need triton")

from featbench.cuda.grey import GreyImages
from featbench.data.maps import Preprocessing, make_maps
from featbench.devices.batches import Batches

CPU = torch.device("cpu")
SHAPES = [(20, 14), (14, 20), (20, 20), (20, 14), (17, 20)]


def maps_like(preprocessing, shapes=SHAPES, dtype=np.uint8):
    generator = np.random.default_rng(0)
    return make_maps([generator.integers(0, 256, shape).astype(dtype) for shape in shapes], preprocessing)


@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize("lcn", [None, 1.0])
def test_the_maps_are_those_of_the_cpu(standardise, lcn, device, error):
    maps = maps_like(Preprocessing(standardise=standardise, lcn=lcn, pad=True))
    chosen = np.array([0, 2, 3, 4])
    grey = GreyImages.from_maps(maps, chosen)
    assert (len(grey), grey.shape) == (4, tuple(maps[chosen].shape))
    found = grey.make_maps(torch.device(device)).cpu()
    assert error(found, maps[chosen]) < 1e-5
    assert torch.equal(grey[1:3].make_maps(torch.device(device)).cpu(), found[1:3])


def test_selected_images_are_the_ones_that_were_selected(device, error):
    maps = maps_like(Preprocessing(pad=True)).select(np.array([4, 1]))
    assert (
        error(
            GreyImages.from_maps(maps, np.array([1, 0])).make_maps(torch.device(device)).cpu(), maps[np.array([1, 0])]
        )
        < 1e-5
    )


def test_only_bytes_are_taken():
    assert GreyImages.can_hold(maps_like(Preprocessing()))
    assert not GreyImages.can_hold(maps_like(Preprocessing(), dtype=np.float32))
    assert not GreyImages.can_hold(torch.zeros(1, 1, 4, 4))


def test_the_bytes_of_colour_images_are_not_taken_for_grey_ones():
    assert not GreyImages.can_hold(maps_like(Preprocessing(channels=3)))


def test_batches_of_bytes_give_the_features_of_maps(device, error):
    maps = maps_like(Preprocessing(lcn=1.0, pad=True))
    network = random_network("4F3-Rabs-N3-PA2/2", maps.shape)
    with torch.no_grad():
        batches = Batches(network, torch.device(device))
        batches.batch_limit = 2
        grey = GreyImages.from_maps(maps, np.arange(5))
        assert error(batches.launch(grey)(), batches.launch(maps[:])()) < 1e-5
