from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from featbench.errors import ArchitectureError, LearningError
from featbench.learning.learner import FilterLearner, NetworkLearner
from featbench.learning.networks import (
    StageFilters,
    assemble,
    find_refusal,
    learn_network,
    learn_stages,
    make_stage_bank,
)
from featbench.plugins.gabor import Gabor
from featbench.plugins.random import Random
from featbench.stages.architecture import Architecture
from featbench.stages.filters import Bank, Filters

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
    bank, table = make_stage_bank(Architecture.parse("PFA2/2-20F5").stages[0], (6, 9, 9), seed=0)
    assert bank == Bank(filters=20, size=5, fan_in=3)
    assert table.tolist() == [[0, 1, 2]]


def test_bank_with_a_table_is_one_group_of_it():
    bank, table = make_stage_bank(Architecture.parse("256F9:16").stages[0], (64, 26, 26), seed=0)
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
        return nn.Conv2d(1, 1, 1)


class WholeSupervised(Whole):
    name = "whole-supervised"
    family = "supervised"


def test_learner_of_a_whole_network_sees_images_only_if_it_is_unsupervised():
    images = sample(7, 1, 8, 8)
    for learner, seen in ((Whole(), images), (Whole(), None), (WholeSupervised(), images)):
        learn_network(learner, (1, 8, 8), seen, seed=0, device=CPU)
    assert [(shape, count) for shape, count, _ in Whole.asked] == [((1, 8, 8), 7), ((1, 8, 8), None), ((1, 8, 8), None)]


def test_seed_decides_a_whole_network():
    one, same, other = (learn_network(Whole(), (1, 8, 8), None, seed=seed, device=CPU) for seed in (1, 1, 2))
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
    reason = find_refusal(Architecture.parse(text), Gabor(), (1, 12, 12))
    assert reason is not None
    assert reason.startswith("gabor in stage 2: ")
    assert find_refusal(Architecture.parse(text), Random(), (1, 12, 12)) is None


def test_refusal_of_a_misfit_is_its_error():
    with pytest.raises(ArchitectureError, match="5×5 came in"):
        find_refusal(Architecture.parse("8F9"), Random(), (1, 5, 5))


class Threads(FilterLearner):
    """Random filters; keeps with how many threads it was asked, and with how many its images came."""

    name = "threads"
    family = "unsupervised"
    asked: ClassVar[list[tuple[int, int]]] = []

    def filters(self, bank, patches, seed):
        cutting = []
        patches.maps._extractor.fused.register_forward_hook(lambda *_: cutting.append(torch.get_num_threads()))
        patches.sample(20)
        self.asked.append((torch.get_num_threads(), max(cutting)))
        return torch.randn(bank.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("filters", "expected"), [("8F3", 1), ("64F9", 1), ("808F9", 1), ("810F9", 3)], ids=lambda value: str(value)
)
def test_small_banks_are_learned_with_one_thread_on_images_that_come_with_all(filters, expected, monkeypatch):
    monkeypatch.setattr(Threads, "asked", [])
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        learn_stages(Architecture.parse(filters), Threads(), (1, 16, 16), sample(4, 1, 16, 16), seed=0, device=CPU)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert Threads.asked == [(expected, 3)]
