import time

import numpy as np
import pytest
import torch
from helpers.networks import noise, random_network
from torch import nn

from featbench.data.maps import Maps, Preprocessing, make_maps
from featbench.devices import batches
from featbench.devices.batches import FEWEST
from featbench.errors import DataError, FeatureError, PluginError
from featbench.features import extraction as module
from featbench.features.extraction import (
    FeatureBlock,
    HalfPrecisionError,
    compute_features,
    convert_to_half_precision,
    extract,
    keep_in_least_precision,
)

CPU = torch.device("cpu")
TWO_STAGES = "8F3-Rabs-N-PA2/2 > 32F3:4-Rabs-N-PA2/1"


def gathered(blocks):
    """Return the values of blocks, one after another, and the grids of all their images."""
    blocks = list(blocks)
    return np.concatenate([block.values for block in blocks]), [grid for block in blocks for grid in block.grids]


def test_features_are_the_flattened_maps():
    network, x = random_network(TWO_STAGES, (1, 16, 16)), noise(9, 1, 16, 16)
    features = extract(network, x, CPU)
    expected = network(x).detach().flatten(1).numpy()
    assert features.dtype == np.float32
    assert features.shape == (9, 32 * 4 * 4)
    assert np.linalg.norm(features - expected) < 1e-6 * np.linalg.norm(expected)


@pytest.mark.parametrize("block", [1, 2, 4, 100])
def test_blocks_of_any_size_give_the_same_features(block, monkeypatch):
    network, x = random_network(TWO_STAGES, (1, 16, 16)), noise(9, 1, 16, 16)
    whole = extract(network, x, CPU)
    done = []
    monkeypatch.setattr(module, "BLOCK_IMAGES", block)
    again = extract(network, x, CPU, lambda *progress: done.append(progress))
    np.testing.assert_allclose(again, whole, atol=1e-5)
    assert done == [(min(k + block, 9), 9) for k in range(0, 9, block)]


def test_large_maps_are_computed_in_smaller_blocks(monkeypatch):
    network, x = random_network("8C3 > 1C3", (1, 10, 10)), noise(10, 1, 10, 10)
    # The largest output on the way is that of the first stage, 8×8×8; four of them fit.
    monkeypatch.setattr(batches, "BLOCK_VALUES", {"cpu": 4 * 512 + 1})
    assert [len(block.values) for block in compute_features(network, x, CPU)] == [4, 4, 2]


class Shared(nn.Module):
    """A plugin's module: whether two threads were in it at once is noted."""

    def __init__(self):
        super().__init__()
        self.inside, self.most = 0, 0

    def forward(self, x):
        self.inside += 1
        self.most = max(self.most, self.inside)
        time.sleep(0.002)
        self.inside -= 1
        return x


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_several_threads_give_the_same_features_in_the_same_order(two_threads, monkeypatch):
    network, x = random_network(TWO_STAGES, (1, 16, 16)), noise(33, 1, 16, 16)
    monkeypatch.setattr(module, "BLOCK_IMAGES", 2)
    parallel = extract(network, x, CPU)
    torch.set_num_threads(1)
    assert np.array_equal(extract(network, x, CPU), parallel)


def test_a_module_that_nobody_knows_is_run_by_one_thread_at_a_time(two_threads, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_IMAGES", 2)
    network = nn.Sequential(random_network("4F3-Rabs", (1, 8, 8)), Shared())
    extract(network, noise(20, 1, 8, 8), CPU)
    assert network[1].most == 1


def test_several_threads_give_images_of_several_sizes_their_features(two_threads, monkeypatch):
    generator = np.random.default_rng(0)
    shapes = [(9 + k % 3, 8 + k % 4) for k in range(40)]
    maps = make_maps([generator.integers(0, 256, shape, dtype=np.uint8) for shape in shapes], Preprocessing())
    network = random_network("4F3-shrink-Rabs-N3", (1, 9, 8))
    monkeypatch.setattr(module, "SEVERAL_SIZES", 3)

    def features():
        return gathered(compute_features(network, maps, CPU, several_sizes=True))

    parallel, grids = features()
    torch.set_num_threads(1)
    alone, same = features()
    assert np.array_equal(parallel, alone)
    assert grids == same


@pytest.mark.parametrize("bad", [0, 7, 19])
def test_an_image_that_is_not_finite_is_named_by_several_threads_too(bad, two_threads, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_IMAGES", 2)
    x = noise(20, 1, 8, 8)
    x[bad:, 0, 1, 1] = float("nan")
    with pytest.raises(FeatureError, match=f"features of image {bad} are not finite"):
        extract(random_network("4F3-Rabs", (1, 8, 8)), x, CPU)


def test_image_alone_has_the_features_it_has_among_others():
    network, x = random_network(TWO_STAGES, (1, 16, 16)), noise(6, 1, 16, 16)
    together = extract(network, x, CPU)
    alone = np.concatenate([extract(network, x[i : i + 1], CPU) for i in range(6)])
    np.testing.assert_allclose(alone, together, atol=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_feature_that_is_not_finite_is_refused_with_the_image_named(bad, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_IMAGES", 2)
    x = noise(7, 1, 4, 4)
    x[5, 0, 1, 1] = bad
    with pytest.raises(FeatureError, match="features of image 5 are not finite"):
        extract(nn.Identity(), x, CPU)


def test_extraction_leaves_training_mode_and_computes_no_gradients():
    network = nn.Sequential(nn.Dropout(0.5))
    x = noise(3, 1, 4, 4)
    assert np.array_equal(extract(network, x, CPU), x.flatten(1))


def test_blocks_are_the_features_in_order_as_they_come(monkeypatch):
    network, x = random_network(TWO_STAGES, (1, 16, 16)), noise(9, 1, 16, 16)
    whole = network(x).detach().numpy()
    monkeypatch.setattr(module, "BLOCK_IMAGES", 4)
    blocks = (block.values for block in compute_features(network, x, CPU))
    first = next(blocks)
    rest = list(blocks)
    assert [len(block) for block in (first, *rest)] == [4, 4, 1]
    np.testing.assert_allclose(np.concatenate([first, *rest]), whole, atol=1e-5)


def test_maps_are_computed_block_by_block_where_they_are_asked_for(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_IMAGES", 4)
    maps = make_maps(np.random.default_rng(0).integers(0, 256, (9, 16, 16), dtype=np.uint8), Preprocessing())
    network = random_network(TWO_STAGES, maps.shape)
    together = extract(network, maps[:], CPU)
    asked = []
    original = Maps.__getitem__
    monkeypatch.setattr(Maps, "__getitem__", lambda self, which: asked.append(which) or original(self, which))
    np.testing.assert_allclose(extract(network, maps, CPU), together, atol=1e-5)
    assert max(len(range(9)[which]) for which in asked) == 4


# Images of several sizes.

SHAPES = [(9, 7), (6, 8), (9, 7), (6, 6), (8, 6), (6, 8), (9, 7)]


def of_several_sizes(shapes=SHAPES):
    generator = np.random.default_rng(3)
    return make_maps([generator.integers(0, 256, shape, dtype=np.uint8) for shape in shapes], Preprocessing())


@pytest.mark.parametrize("at_once", [1, 2, 3, 64])
@pytest.mark.parametrize("text", ["5F3-Rabs-N3-PA2/1", "4F2-Rabs-PA2/1 > 8F2:2-Rabs"])
def test_images_of_several_sizes_have_the_features_that_each_has_alone(text, at_once, monkeypatch):
    monkeypatch.setattr(module, "SEVERAL_SIZES", at_once)
    maps, done = of_several_sizes(), []
    network = random_network(text, (1, 6, 6))
    blocks = list(compute_features(network, maps, CPU, lambda *progress: done.append(progress), several_sizes=True))
    found, grids = gathered(blocks)
    alone = [network(maps[i : i + 1])[0].detach() for i in range(len(maps))]
    assert grids == [tuple(one.shape[1:]) for one in alone]
    assert len(set(grids)) == len(set(SHAPES))
    vectors = [one[:, r, c].numpy() for one in alone for r in range(one.shape[1]) for c in range(one.shape[2])]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.stack(vectors), atol=1e-5)
    assert done == [(min(k + at_once, 7), 7) for k in range(0, 7, at_once)]
    counts = [height * width for height, width in grids]
    assert [len(block.grids) for block in blocks] == [min(at_once, 7 - k) for k in range(0, 7, at_once)]
    assert [len(block.values) for block in blocks] == [sum(counts[k : k + at_once]) for k in range(0, 7, at_once)]


def test_images_of_one_size_among_several_are_computed_together():
    sizes = []
    network = nn.Identity()
    network.register_forward_pre_hook(lambda _module, inputs: sizes.append(tuple(inputs[0].shape)))
    list(compute_features(network, of_several_sizes(), CPU, several_sizes=True))
    measured, *computed = sizes
    assert measured == (1, 1, 6, 6)
    # A batch each, filled up to the least number of images.
    assert sorted(computed) == [(FEWEST, 1, 6, 6), (FEWEST, 1, 6, 8), (FEWEST, 1, 8, 6), (FEWEST, 1, 9, 7)]


class MeanAndLargest(nn.Module):
    def forward(self, x):
        return torch.stack([x.mean(dim=(1, 2, 3)), x.amax(dim=(1, 2, 3))], dim=1)


@pytest.mark.parametrize("at_once", [2, 64])
def test_network_that_gives_one_row_gives_rows_for_images_of_several_sizes_too(at_once, monkeypatch):
    monkeypatch.setattr(module, "SEVERAL_SIZES", at_once)
    maps = of_several_sizes()
    found, grids = gathered(compute_features(MeanAndLargest(), maps, CPU, several_sizes=True))
    expected = [[float(maps[i : i + 1].mean()), float(maps[i : i + 1].max())] for i in range(7)]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert grids == []


def test_one_image_size_gives_the_same_vectors_in_maps_and_packed():
    maps = of_several_sizes([(7, 6)] * 5)
    network = random_network("5F3-Rabs", (1, 7, 6))
    (packed,) = compute_features(network, maps, CPU, several_sizes=True)
    (whole,) = compute_features(network, maps, CPU)
    assert (whole.values.shape, whole.grids, packed.grids) == ((5, 5, 5, 4), (), ((5, 4),) * 5)
    np.testing.assert_allclose(packed.values, whole.values.transpose(0, 2, 3, 1).reshape(-1, 5), atol=1e-6)


def test_images_of_several_sizes_are_refused_where_one_is_asked_for():
    with pytest.raises(DataError, match="the images have 4 sizes"):
        extract(nn.Identity(), of_several_sizes(), CPU)


def test_rows_of_several_lengths_are_refused():
    with pytest.raises(PluginError, match="rows of several lengths"):
        list(compute_features(nn.Flatten(), of_several_sizes(), CPU, several_sizes=True))


@pytest.mark.parametrize("several", [False, True])
def test_features_of_fewer_images_than_came_in_are_refused(several):
    class Half(nn.Module):
        def forward(self, x):
            return x[: (len(x) + 1) // 2].mean(dim=(2, 3))

    maps = of_several_sizes([(7, 6)] * 6)
    with pytest.raises(PluginError, match="features of 4 images for 8"):
        list(compute_features(Half(), maps, CPU, several_sizes=several))


class Bad(nn.Module):
    """Not finite for images of nine rows whose mean is above the one given."""

    def __init__(self, mean):
        super().__init__()
        self.mean = mean

    def forward(self, x):
        return torch.where((x[:, :, :1, :1] > self.mean) & (torch.tensor(x.shape[2]) == 9), torch.nan, x)


@pytest.mark.parametrize("at_once", [1, 2, 64])
def test_feature_that_is_not_finite_names_the_image_among_several_sizes(at_once, monkeypatch):
    monkeypatch.setattr(module, "SEVERAL_SIZES", at_once)
    maps = of_several_sizes()
    corners = {i: float(maps[i : i + 1][0, 0, 0, 0]) for i, shape in enumerate(SHAPES) if shape == (9, 7)}
    largest = max(corners, key=corners.get)
    second = sorted(corners.values())[-2]
    with pytest.raises(FeatureError, match=f"features of image {largest} are not finite"):
        list(compute_features(Bad((corners[largest] + second) / 2), maps, CPU, several_sizes=True))


def test_the_next_block_is_launched_before_the_last_one_is_waited_for():
    happened = []

    class Launching:
        def launch(self, maps):
            number = int(maps[0, 0])
            happened.append(f"launch {number}")
            return lambda: happened.append(f"wait {number}") or 2 * maps

    blocks = ([module.ImageGroup(np.array([k]), torch.full((1, 3), float(k)))] for k in range(3))
    made = list(module._compute_streamed(Launching(), blocks))
    assert happened == ["launch 0", "launch 1", "wait 0", "launch 2", "wait 1", "wait 2"]
    assert [features.tolist() for ((_, features),) in made] == [[[2.0 * k] * 3] for k in range(3)]


def halves(*features):
    return [block.values for block in convert_to_half_precision(iter(map(FeatureBlock, features)))]


def test_half_precision_is_used_where_it_is_harmless():
    features = noise(5, 20).numpy()
    (half,) = halves(features)
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, features, rtol=1e-3, atol=1e-6)
    assert [block.dtype for block in halves(np.zeros((3, 4), dtype=np.float32))] == [np.float16]


@pytest.mark.parametrize("scale", [1e6, 1e-9])
def test_features_beyond_half_precision_are_not_halved(scale):
    features = (scale * noise(5, 20)).numpy()
    with pytest.raises(HalfPrecisionError):
        halves(features)


def test_a_later_block_beyond_half_precision_is_noticed_as_well():
    features = noise(5, 20).numpy(), (1e6 * noise(5, 20)).numpy()
    blocks = convert_to_half_precision(iter(map(FeatureBlock, features)))
    assert next(blocks).values.dtype == np.float16
    with pytest.raises(HalfPrecisionError):
        next(blocks)


def test_blocks_keep_their_grids_in_half_precision():
    (half,) = convert_to_half_precision(iter([FeatureBlock(noise(6, 2).numpy(), ((1, 2), (2, 2)))]))
    assert (half.values.dtype, half.grids) == (np.float16, ((1, 2), (2, 2)))


@pytest.mark.parametrize(("scale", "kept", "times"), [(1, np.float16, 1), (1e6, np.float32, 2)])
def test_features_are_computed_again_only_where_half_precision_harms_them(scale, kept, times):
    # The block that cannot be halved is the last one, so that others were kept before it was seen.
    parts = [noise(4, 3, seed=0).numpy(), (scale * noise(2, 3, seed=1)).numpy()]
    computed = []

    def compute():
        computed.append(True)
        yield from map(FeatureBlock, parts)

    found, _ = gathered(keep_in_least_precision(compute, list))
    assert len(computed) == times
    assert found.dtype == kept
    assert np.array_equal(found, np.concatenate(parts).astype(kept))


def test_what_goes_wrong_while_features_are_kept_is_raised_as_it_is():
    # An error in single precision must not seem to come from half precision.
    def keep(blocks):
        for block in blocks:
            if block.values.dtype == np.float32:
                raise OSError("no space")

    with pytest.raises(OSError, match="no space") as caught:
        keep_in_least_precision(lambda: iter([FeatureBlock(np.full((1, 1), 1e6, np.float32))]), keep)
    assert caught.value.__context__ is None
