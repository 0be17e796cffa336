import numpy as np
import pytest
import torch
from torch import nn

from featbench.data.maps import Maps, Preprocessing
from featbench.data.prepare import PackedImages
from featbench.errors import LearningError
from featbench.learning import patches as module
from featbench.learning.patches import FLAT, MapSource, PatchSource

CPU = torch.device("cpu")


def source(images, size, seed=0, network=None):
    return PatchSource(MapSource(images, network or nn.Identity(), CPU), size, seed)


def numbered(n, maps, height, width, seed=0):
    """Images in which every pixel has a value of its own, in no order."""
    values = np.random.default_rng(seed).permutation(n * maps * height * width)
    return torch.from_numpy(values.reshape(n, maps, height, width)).float()


def place(images, value):
    """Where a value of numbered images is: image, map, row, column."""
    (found,) = (images == value).nonzero().tolist()
    return found


def test_every_patch_is_a_window_of_one_image():
    images = numbered(5, 2, 7, 6)
    patches = source(images, 3).sample(200)
    assert patches.shape == (200, 2, 3, 3)
    for patch in patches:
        image, _, row, column = place(images, patch[0, 0, 0])
        assert torch.equal(patch, images[image, :, row : row + 3, column : column + 3])


def test_patches_come_evenly_from_every_position_of_every_image():
    images = numbered(3, 1, 6, 5)
    first = source(images, 3).sample(7200)[:, 0, 0, 0].long()
    counts = torch.bincount(first, minlength=images.numel())[images.long()][:, 0, :4, :3]
    assert int(counts.sum()) == 7200
    # 36 positions, 200 each on average: 5 standard deviations.
    assert int(counts.min()) > 130
    assert int(counts.max()) < 270


def as_they_are(images):
    """Maps of numbered images, of any sizes."""
    return Maps(PackedImages.pack([image.numpy()[0, 0] for image in images]), Preprocessing(standardise=False))


def test_images_may_have_several_sizes():
    images = [numbered(1, 1, 6, 9), 0.5 + numbered(1, 1, 12, 5)]
    patches = source(as_they_are(images), 4).sample(300)
    owners = (patches[:, 0, 0, 0] % 1 > 0).long()
    assert 0 < int(owners.sum()) < 300
    for patch, owner in zip(patches, owners, strict=True):
        image = images[int(owner)]
        _, _, row, column = place(image, patch[0, 0, 0])
        assert torch.equal(patch, image[0, :, row : row + 4, column : column + 4])


def test_patches_are_cut_from_what_leaves_the_network():
    images = numbered(4, 1, 6, 6)
    through = source(images, 3, network=nn.AvgPool2d(2)).sample(20)
    pooled = nn.functional.avg_pool2d(images, 2)
    assert {float(patch[0, 0, 0]) for patch in through} == {float(image[0, 0, 0]) for image in pooled}
    assert through.shape == (20, 1, 3, 3)


def test_cutting_computes_no_gradients():
    assert not source(numbered(4, 1, 6, 6), 3, network=nn.Conv2d(1, 2, 2)).sample(5).requires_grad


def test_seed_and_count_decide_the_patches():
    images = numbered(50, 1, 8, 8)
    assert torch.equal(source(images, 3, seed=1).sample(64), source(images, 3, seed=1).sample(64))
    assert not torch.equal(source(images, 3, seed=1).sample(64), source(images, 3, seed=2).sample(64))


def test_images_computed_together_or_one_by_one_give_the_same_patches(monkeypatch):
    images = numbered(70, 1, 8, 8)
    together, maps = source(images, 3).sample(100), as_they_are(images.split(1))
    assert torch.equal(source(maps, 3).sample(100), together)
    monkeypatch.setattr(module, "BATCH", 1)
    assert torch.equal(source(images, 3).sample(100), together)
    assert torch.equal(source(maps, 3).sample(100), together)


def test_groups_of_a_connection_table_see_the_same_patches_through_their_own_maps():
    whole = source(numbered(10, 4, 8, 8), 3)
    patches = whole.sample(30)
    assert torch.equal(whole.of(np.array([3, 1])).sample(30), patches[:, [3, 1]])
    assert torch.equal(source(numbered(10, 4, 8, 8), 3).of(np.array([0])).sample(30), patches[:, [0]])


def test_groups_share_the_work_of_cutting():
    calls = []

    class Counted(nn.Module):
        def forward(self, x):
            calls.append(len(x))
            return x

    whole = source(numbered(10, 4, 8, 8), 3, network=Counted())
    whole.of(np.array([3, 1])).sample(30)
    once = len(calls)
    whole.of(np.array([0, 2])).sample(30)
    assert once > 0
    assert len(calls) == once


def test_patches_are_gathered_after_the_flat_ones_are_known(monkeypatch):
    # Four positions are tried for each patch, and all of them together would not fit into memory.
    cut = []
    original = PatchSource._cut_patches

    def watched(self, images, positions, size):
        cut.append(len(images))
        return original(self, images, positions, size)

    monkeypatch.setattr(PatchSource, "_cut_patches", watched)
    assert len(source(numbered(10, 1, 40, 40), 3).sample(100)) == 100
    assert cut == [module.TRIES * 100, 100]


def test_flat_patches_are_left_out():
    images = torch.zeros(20, 1, 20, 20)
    images[:, :, :6, :6] = torch.from_numpy(np.random.default_rng(0).standard_normal((20, 1, 6, 6))).float()
    patches = source(images, 3).sample(100)
    deviations = patches.std(dim=(1, 2, 3))
    assert len(patches) == 100
    assert float(deviations.min()) > FLAT * float(images.std())


def test_few_distinct_patches_are_repeated_about_equally():
    images = numbered(2, 1, 3, 4)
    first = source(images, 3).sample(100)[:, 0, 0, 0]
    values, counts = first.unique(return_counts=True)
    assert values.tolist() == sorted(images[:, 0, 0, :2].flatten().tolist())
    assert int(counts.sum()) == 100
    assert int(counts.min()) >= 10


def test_patches_are_shuffled_over_images():
    first = source(numbered(50, 1, 8, 8), 3).sample(200)[:, 0, 0, 0]
    assert not torch.equal(first, first.sort().values)


def test_single_pixels_of_one_map_can_be_learned_from():
    assert source(numbered(5, 1, 4, 4), 1).sample(50).shape == (50, 1, 1, 1)


@pytest.mark.parametrize("value", [0.0, 0.1, 0.3, 12.34])
def test_images_without_any_contrast_are_refused(value):
    with pytest.raises(LearningError, match="constant: there is nothing to learn from"):
        source(torch.full((5, 2, 8, 8), value), 3).sample(20)


def test_images_that_are_each_constant_are_refused():
    images = torch.rand(5, 1, 1, 1, generator=torch.Generator().manual_seed(0)).expand(5, 1, 8, 8).clone()
    with pytest.raises(LearningError, match="constant: there is nothing to learn from"):
        source(images, 3).sample(20)


def test_image_smaller_than_a_patch_is_named_with_both_sizes():
    images = [numbered(1, 1, 8, 8), numbered(1, 1, 8, 4)]
    with pytest.raises(LearningError, match=r"image 1 is too small .* maps are 8×4, patches are 5×5"):
        source(as_they_are(images), 5).sample(40)


def test_length_is_the_number_of_images():
    assert len(MapSource(numbered(7, 1, 4, 4), nn.Identity(), CPU)) == 7
