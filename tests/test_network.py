from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from featbench import network as module
from featbench.architecture import Architecture
from featbench.errors import ArchitectureError, DeviceError, FeatureError, LearningError, PluginError
from featbench.filters import Bank, Filters
from featbench.learner import FilterLearner, NetworkLearner
from featbench.network import (
    HalfPrecisionError,
    StageFilters,
    assemble,
    extract,
    feature_blocks,
    in_half_precision,
    learn_stages,
    network_of,
    refusal,
    resolve_device,
    stage_bank,
)
from featbench.plugins.gabor import Gabor
from featbench.plugins.random import Random
from featbench.preprocess import Maps, Preprocessing, maps_of

CPU = torch.device("cpu")
TWO_STAGES = "8F3-Rabs-N-PA2/2 > 32F3:4-Rabs-N-PA2/1"
TOKENS = [
    *("Rabs", "N", "N3", "Nsub", "Ndiv5", "Nz", "tanh", "relu", "shrink", "wta"),
    *("PA3/2", "PA2/1", "PM2", "PL2:3/2", "PX4:2", "PFA2/1", "PFM2", "PFL2:2/1", "PFX4:2"),
]

operations = st.lists(st.sampled_from(TOKENS), max_size=3)
banks = st.builds(
    lambda count, letter, size, table: f"{count}{letter}{size}{table}",
    st.integers(1, 20),
    st.sampled_from("FC"),
    st.integers(1, 4),
    st.sampled_from(["", ":1", ":2"]),
)
stages = st.builds(lambda before, bank, after: "-".join([*before, bank, *after]), operations, banks, operations)
architectures = st.lists(stages, min_size=1, max_size=2).map(" > ".join)


def sample(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).float()


def build(text, shape, learner=None, seed=0, images=None):
    architecture, learner = Architecture.parse(text), learner or Random()
    return assemble(
        architecture, learner, shape, learn_stages(architecture, learner, shape, images, seed=seed, device=CPU)
    )


@dataclass(frozen=True)
class Watcher(FilterLearner):
    """Keeps what it was asked for; filters come from the mean of its patches."""

    name: ClassVar[str] = "watcher"
    family: ClassVar[str] = "unsupervised"
    asked: ClassVar[list] = []

    def filters(self, bank, patches, seed):
        sampled = None if patches is None else patches.sample(10)
        Watcher.asked.append((bank, sampled, seed))
        return torch.randn(bank.shape, generator=torch.Generator().manual_seed(seed))


class RandomWatcher(Watcher):
    name = "random-watcher"
    family = "random"


@pytest.fixture(autouse=True)
def _forget():
    Watcher.asked.clear()
    Whole.asked.clear()


@settings(derandomize=True, deadline=None, database=None, max_examples=60)
@given(architectures, st.integers(1, 3), st.integers(4, 14), st.integers(4, 14))
def test_predicted_shapes_are_those_of_the_real_modules(text, maps, height, width):
    shape = (maps, height, width)
    try:
        predicted = Architecture.parse(text).shapes(shape)
    except ArchitectureError:
        assume(False)
    x = sample(2, *shape)
    for stage, expected in zip(build(text, shape), predicted, strict=True):
        x = stage(x)
        assert tuple(x.shape) == (2, *expected)
    assert torch.isfinite(x).all()


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("64F9-Rabs-N-PA10/5 > 256F9:16-Rabs-N-PA6/4", (1, 143, 143)),
        ("32F5-Rabs-N-PA2/2 > 64F5:16-Rabs-N-PA2/2", (1, 28, 28)),
    ],
)
def test_predicted_shapes_of_the_papers_architectures(text, shape):
    x = sample(1, *shape)
    for stage, expected in zip(build(text, shape), Architecture.parse(text).shapes(shape), strict=True):
        x = stage(x)
        assert tuple(x.shape[1:]) == expected


def test_bank_without_a_table_sees_every_map_at_once():
    bank, table = stage_bank(Architecture.parse("PFA2/2-20F5").stages[0], (6, 9, 9), seed=0)
    assert bank == Bank(filters=20, size=5, fan_in=3)
    assert table.tolist() == [[0, 1, 2]]


def test_bank_with_a_table_is_one_group_of_it():
    bank, table = stage_bank(Architecture.parse("256F9:16").stages[0], (64, 26, 26), seed=0)
    assert bank == Bank(filters=16, size=9, fan_in=16)
    assert table.shape == (16, 16)


def test_seed_decides_filters_and_tables():
    one, same, other = (
        learn_stages(Architecture.parse(TWO_STAGES), Random(), (1, 16, 16), None, seed=seed, device=CPU)
        for seed in (1, 1, 2)
    )
    for a, b, c in zip(one, same, other, strict=True):
        assert torch.equal(a.filters.weight, b.filters.weight)
        assert np.array_equal(a.table, b.table)
        assert not torch.equal(a.filters.weight, c.filters.weight)
    assert not np.array_equal(one[1].table, other[1].table)


def test_groups_and_stages_get_filters_of_their_own():
    learned = learn_stages(Architecture.parse("16F3 > 32F3:16"), Random(), (1, 16, 16), None, seed=0, device=CPU)
    first, second = learned[1].filters.weight.split(16)
    assert not torch.equal(first, second)
    assert len({seed for _, _, seed in Watcher.asked}) == len(Watcher.asked)


def test_unsupervised_learner_is_asked_once_a_group_with_patches_of_the_maps_it_will_see():
    images = sample(12, 1, 16, 16)
    architecture = Architecture.parse("N3-8F3-Rabs-PA2/2 > PM2-32F2:4-Rabs")
    learned = learn_stages(architecture, Watcher(), (1, 16, 16), images, seed=5, device=CPU)
    assert [bank for bank, _, _ in Watcher.asked] == [Bank(8, 3, 1)] + 2 * [Bank(16, 2, 4)]
    assert len({seed for _, _, seed in Watcher.asked}) == 3

    network = assemble(architecture, Watcher(), (1, 16, 16), learned)
    with torch.no_grad():
        entering = [network[0][0](images), network[1][0](network[0](images))]
    for (bank, patches, _), maps, table in zip(
        Watcher.asked, [entering[0], entering[1], entering[1]], [[0], *learned[1].table], strict=True
    ):
        windows = maps[:, table].unfold(2, bank.size, 1).unfold(3, bank.size, 1)
        windows = windows.permute(0, 2, 3, 1, 4, 5).reshape(-1, *bank.shape[1:])
        for patch in patches:
            assert float((windows - patch).abs().amax(dim=(1, 2, 3)).min()) < 1e-5


def test_other_families_are_given_no_patches():
    learn_stages(Architecture.parse("8F3"), RandomWatcher(), (1, 8, 8), sample(4, 1, 8, 8), seed=0, device=CPU)
    assert [patches for _, patches, _ in Watcher.asked] == [None]


class Sampler(RandomWatcher):
    name = "sampler"
    samples_images = True


def test_learner_that_samples_images_is_given_patches_whatever_its_family():
    assert [learner.looks() for learner in (Watcher, RandomWatcher, Sampler)] == [True, False, True]
    learn_stages(Architecture.parse("8F3"), Sampler(), (1, 8, 8), sample(4, 1, 8, 8), seed=0, device=CPU)
    ((bank, patches, _),) = Watcher.asked
    assert patches.shape == (10, 1, 3, 3)
    assert bank == Bank(8, 3, 1)


def test_unsupervised_learner_without_images_says_so():
    from featbench.plugins.psd import Psd

    with pytest.raises(LearningError, match="was given none"):
        learn_stages(Architecture.parse("8F3"), Psd(), (1, 8, 8), None, seed=0, device=CPU)


class Unseeded(RandomWatcher):
    name = "unseeded"

    def filters(self, bank, patches, seed):
        return torch.rand(bank.shape) + float(np.random.random())


def test_learner_that_draws_from_global_generators_is_reproducible_and_leaves_them_alone():
    weights = []
    for seed in (1, 1, 2):
        before = torch.get_rng_state(), np.random.get_state()[1].copy()
        (learned,) = learn_stages(Architecture.parse("4F3"), Unseeded(), (1, 8, 8), None, seed=seed, device=CPU)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.array_equal(np.random.get_state()[1], before[1])
        weights.append(learned.filters.weight)
        torch.rand(1)
        np.random.random()
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@dataclass(frozen=True)
class Whole(NetworkLearner):
    """Keeps what it was asked for; its network holds random numbers."""

    name: ClassVar[str] = "whole"
    family: ClassVar[str] = "unsupervised"
    asked: ClassVar[list] = []

    def network(self, shape, maps, seed):
        Whole.asked.append((shape, None if maps is None else len(maps), seed))
        return nn.Linear(1, 1)


class WholeSupervised(Whole):
    name = "whole-supervised"
    family = "supervised"


def test_learner_of_a_whole_network_sees_images_only_if_it_is_unsupervised():
    images = sample(7, 1, 8, 8)
    for learner, seen in ((Whole(), images), (Whole(), None), (WholeSupervised(), images)):
        network_of(learner, (1, 8, 8), seen, seed=0, device=CPU)
    assert [(shape, count) for shape, count, _ in Whole.asked] == [((1, 8, 8), 7), ((1, 8, 8), None), ((1, 8, 8), None)]


def test_seed_decides_a_whole_network():
    one, same, other = (network_of(Whole(), (1, 8, 8), None, seed=seed, device=CPU) for seed in (1, 1, 2))
    assert torch.equal(one.weight, same.weight)
    assert not torch.equal(one.weight, other.weight)
    assert Whole.asked[0][2] == Whole.asked[1][2] != Whole.asked[2][2]


def test_network_is_its_stages_one_after_another():
    filters = Filters(sample(4, 1, 3, 3)), Filters(sample(2, 4, 2, 2, seed=1))
    architecture = Architecture.parse("4C3-relu > 2C2-Rabs")
    tables = np.arange(1)[None], np.arange(4)[None]
    learned = [StageFilters(f, t) for f, t in zip(filters, tables, strict=True)]
    x = sample(3, 1, 7, 6)
    expected = nn.functional.conv2d(nn.functional.conv2d(x, filters[0].weight).relu(), filters[1].weight).abs()
    network = assemble(architecture, Random(), (1, 7, 6), learned)
    np.testing.assert_allclose(network(x).detach(), expected, atol=1e-5)


def test_refusal_names_learner_stage_and_reason():
    text = "8F3 > 8F3"
    reason = refusal(Architecture.parse(text), Gabor(), (1, 12, 12))
    assert reason is not None
    assert reason.startswith("gabor in stage 2: ")
    assert refusal(Architecture.parse(text), Random(), (1, 12, 12)) is None


def test_refusal_of_a_misfit_is_its_error():
    with pytest.raises(ArchitectureError, match="5×5 came in"):
        refusal(Architecture.parse("8F9"), Random(), (1, 5, 5))


def test_features_are_the_flattened_maps():
    network, x = build(TWO_STAGES, (1, 16, 16)), sample(9, 1, 16, 16)
    features = extract(network, x, CPU)
    expected = network(x).detach().flatten(1).numpy()
    assert features.dtype == np.float32
    assert features.shape == (9, 32 * 4 * 4)
    assert np.linalg.norm(features - expected) < 1e-6 * np.linalg.norm(expected)


@pytest.mark.parametrize("block", [1, 2, 4, 100])
def test_blocks_of_any_size_give_the_same_features(block, monkeypatch):
    network, x = build(TWO_STAGES, (1, 16, 16)), sample(9, 1, 16, 16)
    whole = extract(network, x, CPU)
    done = []
    monkeypatch.setattr(module, "BLOCK_IMAGES", block)
    again = extract(network, x, CPU, lambda *progress: done.append(progress))
    np.testing.assert_allclose(again, whole, atol=1e-5)
    assert done == [(min(k + block, 9), 9) for k in range(0, 9, block)]


def test_large_maps_are_computed_in_smaller_blocks(monkeypatch):
    network, x = build("8C3 > 1C3", (1, 10, 10)), sample(10, 1, 10, 10)
    sizes = []
    network.register_forward_pre_hook(lambda _module, inputs: sizes.append(len(inputs[0])))
    # The largest output on the way is that of the first stage, 8×8×8; four of them fit.
    monkeypatch.setattr(module, "BLOCK_VALUES", 4 * 512 + 1)
    extract(network, x, CPU)
    assert sizes[-3:] == [4, 4, 2]


def test_image_alone_has_the_features_it_has_among_others():
    network, x = build(TWO_STAGES, (1, 16, 16)), sample(6, 1, 16, 16)
    together = extract(network, x, CPU)
    alone = np.concatenate([extract(network, x[i : i + 1], CPU) for i in range(6)])
    np.testing.assert_allclose(alone, together, atol=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_feature_that_is_not_finite_is_refused_with_the_image_named(bad, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_IMAGES", 2)
    x = sample(7, 1, 4, 4)
    x[5, 0, 1, 1] = bad
    with pytest.raises(FeatureError, match="features of image 5 are not finite"):
        extract(nn.Identity(), x, CPU)


def test_extraction_leaves_training_mode_and_computes_no_gradients():
    network = nn.Sequential(nn.Dropout(0.5))
    x = sample(3, 1, 4, 4)
    assert np.array_equal(extract(network, x, CPU), x.flatten(1))


def test_blocks_are_the_features_in_order_as_they_come(monkeypatch):
    network, x = build(TWO_STAGES, (1, 16, 16)), sample(9, 1, 16, 16)
    whole = network(x).detach().numpy()
    monkeypatch.setattr(module, "BLOCK_IMAGES", 4)
    blocks = feature_blocks(network, x, CPU)
    first = next(blocks)
    rest = list(blocks)
    assert [len(block) for block in (first, *rest)] == [4, 4, 1]
    np.testing.assert_allclose(np.concatenate([first, *rest]), whole, atol=1e-5)


def test_maps_are_computed_block_by_block_where_they_are_asked_for(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_IMAGES", 4)
    maps = maps_of(np.random.default_rng(0).integers(0, 256, (9, 16, 16), dtype=np.uint8), Preprocessing())
    network = build(TWO_STAGES, maps.shape)
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
    return maps_of([generator.integers(0, 256, shape, dtype=np.uint8) for shape in shapes], Preprocessing())


@pytest.mark.parametrize("at_once", [1, 2, 3, 64])
@pytest.mark.parametrize("text", ["5F3-Rabs-N3-PA2/1", "4F2-Rabs-PA2/1 > 8F2:2-Rabs"])
def test_images_of_several_sizes_have_the_features_that_each_has_alone(text, at_once, monkeypatch):
    monkeypatch.setattr(module, "SEVERAL_SIZES", at_once)
    maps, grids, done = of_several_sizes(), [], []
    network = build(text, (1, 6, 6))
    blocks = list(feature_blocks(network, maps, CPU, lambda *progress: done.append(progress), grids))
    alone = [network(maps[i : i + 1])[0].detach() for i in range(len(maps))]
    assert grids == [tuple(one.shape[1:]) for one in alone]
    assert len(set(grids)) == len(set(SHAPES))
    vectors = [one[:, r, c].numpy() for one in alone for r in range(one.shape[1]) for c in range(one.shape[2])]
    found = np.concatenate(blocks)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.stack(vectors), atol=1e-5)
    assert done == [(min(k + at_once, 7), 7) for k in range(0, 7, at_once)]
    counts = [height * width for height, width in grids]
    assert [len(block) for block in blocks] == [sum(counts[k : k + at_once]) for k in range(0, 7, at_once)]


def test_images_of_one_size_among_several_are_computed_together():
    sizes = []
    network = nn.Identity()
    network.register_forward_pre_hook(lambda _module, inputs: sizes.append(tuple(inputs[0].shape)))
    list(feature_blocks(network, of_several_sizes(), CPU, grids=[]))
    assert sorted(sizes) == [(1, 1, 6, 6), (1, 1, 8, 6), (2, 1, 6, 8), (3, 1, 9, 7)]


class MeanAndLargest(nn.Module):
    def forward(self, x):
        return torch.stack([x.mean(dim=(1, 2, 3)), x.amax(dim=(1, 2, 3))], dim=1)


@pytest.mark.parametrize("at_once", [2, 64])
def test_network_that_gives_one_row_gives_rows_for_images_of_several_sizes_too(at_once, monkeypatch):
    monkeypatch.setattr(module, "SEVERAL_SIZES", at_once)
    maps, grids = of_several_sizes(), []
    found = np.concatenate(list(feature_blocks(MeanAndLargest(), maps, CPU, grids=grids)))
    expected = [[float(maps[i : i + 1].mean()), float(maps[i : i + 1].max())] for i in range(7)]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert grids == []


def test_one_image_size_gives_the_same_vectors_in_maps_and_packed():
    maps, grids = of_several_sizes([(7, 6)] * 5), []
    network = build("5F3-Rabs", (1, 7, 6))
    (packed,) = feature_blocks(network, maps, CPU, grids=grids)
    (whole,) = feature_blocks(network, maps, CPU)
    assert (whole.shape, grids) == ((5, 5, 5, 4), [(5, 4)] * 5)
    np.testing.assert_allclose(packed, whole.transpose(0, 2, 3, 1).reshape(-1, 5), atol=1e-6)


def test_rows_of_several_lengths_are_refused():
    with pytest.raises(PluginError, match="rows of several lengths"):
        list(feature_blocks(nn.Flatten(), of_several_sizes(), CPU, grids=[]))


@pytest.mark.parametrize("several", [False, True])
def test_features_of_fewer_images_than_came_in_are_refused(several):
    class Half(nn.Module):
        def forward(self, x):
            return x[: (len(x) + 1) // 2].mean(dim=(2, 3))

    maps = of_several_sizes([(7, 6)] * 6)
    with pytest.raises(PluginError, match="features of 3 images for 6"):
        list(feature_blocks(Half(), maps, CPU, grids=[] if several else None))


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
        list(feature_blocks(Bad((corners[largest] + second) / 2), maps, CPU, grids=[]))


def halves(*blocks):
    return list(in_half_precision(iter(blocks)))


def test_half_precision_is_used_where_it_is_harmless():
    features = sample(5, 20).numpy()
    (half,) = halves(features)
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, features, rtol=1e-3, atol=1e-6)
    assert [block.dtype for block in halves(np.zeros((3, 4), dtype=np.float32))] == [np.float16]


@pytest.mark.parametrize("scale", [1e6, 1e-9])
def test_features_beyond_half_precision_are_not_halved(scale):
    features = (scale * sample(5, 20)).numpy()
    with pytest.raises(HalfPrecisionError):
        halves(features)


def test_a_later_block_beyond_half_precision_is_noticed_as_well():
    blocks = in_half_precision(iter([sample(5, 20).numpy(), (1e6 * sample(5, 20)).numpy()]))
    assert next(blocks).dtype == np.float16
    with pytest.raises(HalfPrecisionError):
        next(blocks)


def test_device_is_cuda_only_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == CPU
    with pytest.raises(DeviceError, match="no CUDA device"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda")
    assert resolve_device("cpu") == CPU


def test_unknown_device_is_refused_with_the_known_ones():
    with pytest.raises(DeviceError, match="unknown device 'gpu': it is auto, cpu or cuda"):
        resolve_device("gpu")
