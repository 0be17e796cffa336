"""Networks as they are run against the modules they are made of."""

import pytest
import torch
from helpers.networks import noise, random_network
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from featbench.devices.selection import select_operations
from featbench.errors import ArchitectureError
from featbench.operations.fused_network import FusedNetwork
from featbench.operations.reference import Reference

TOKENS = [
    *("Rabs", "N", "N3", "Nsub", "Ndiv5", "Nz", "tanh", "relu", "shrink", "wta"),
    *("PA4/2", "PA3/2", "PA2/1", "PM2", "PL2:3/2", "PX4:2", "PFA2/1"),
]

banks = st.builds(
    lambda count, letter, size, table: f"{count}{letter}{size}{table}",
    st.integers(1, 20),
    st.sampled_from("FC"),
    st.integers(1, 4),
    st.sampled_from(["", ":1", ":2"]),
)
around = st.lists(st.sampled_from(TOKENS), max_size=3)
stages = st.builds(lambda before, bank, after: "-".join([*before, bank, *after]), around, banks, around)


def relative(found, truth):
    return float((found.double() - truth).norm() / truth.norm().clamp_min(1e-12))


@settings(derandomize=True, deadline=None, database=None, max_examples=150)
@given(st.lists(stages, min_size=1, max_size=2), st.sampled_from([" > ", " >+ "]), st.integers(1, 3))
def test_any_architecture_gives_what_its_modules_give(texts, joint, n):
    text, shape = joint.join(texts), (2, 17, 15)
    try:
        network = random_network(text, shape)
    except ArchitectureError:
        assume(False)
    x = noise(n, *shape)
    before = x.clone()
    with torch.no_grad():
        plain = network(x).double()
        truth = network.double()(x.double())
        network.float()
        # Filters of zero mean and one weight are zero: all that comes after them is rounding.
        assume(float(truth.abs().mean()) > 1e-4)
        # What is rounding alone, as a filter that sums to zero over a constant, has no digits in common.
        bound = max(2e-5 * truth.norm(), 20 * (plain - truth).norm())
        for operations in (select_operations("cpu"), Reference()):
            found = FusedNetwork(network, operations)(x)
            assert found.shape == truth.shape
            assert found.is_contiguous()
            # Winner takes all, and maps of rounding alone, may fall either way.
            if "wta" not in text:
                assert (found - truth).norm() <= bound, text
    assert torch.equal(x, before)


@pytest.mark.parametrize("text", ["64F9-Rabs-N-PA10/5", "64F9-Rabs-N-PA10/5 > 256F9:16-Rabs-N-PA6/4"])
def test_the_architectures_of_the_paper_lie_within_the_bound(text):
    network, x = random_network(text, (1, 143, 143)), noise(2, 1, 143, 143)
    with torch.no_grad():
        truth = network.double()(x.double())
        assert relative(FusedNetwork(network.float(), select_operations("cpu"))(x), truth) < 1e-5


@pytest.mark.parametrize("text", ["64F9-Rabs-N-PA10/5", "16F5-Rabs-N-PA4/2 > 32F3:4-Rabs-N-PA2/2"])
@pytest.mark.parametrize("threads", [1, 2])
def test_an_image_has_the_same_features_to_the_last_bit_in_any_batch_and_with_any_threads(text, threads):
    network, x = random_network(text, (1, 65, 65)), noise(5, 1, 65, 65)
    before = torch.get_num_threads()
    with torch.no_grad():
        fused = FusedNetwork(network, select_operations("cpu"))
        alone = torch.cat([fused(one) for one in x.split(1)])
        try:
            torch.set_num_threads(threads)
            for size in (1, 2, 3, 5):
                assert torch.equal(torch.cat([fused(part) for part in x.split(size)]), alone), size
        finally:
            torch.set_num_threads(before)


def test_no_images_give_no_features_of_the_right_shape():
    with torch.no_grad():
        assert FusedNetwork(random_network("4F3-Rabs-N3-PA2/2", (1, 9, 9)), select_operations("cpu"))(
            noise(0, 1, 9, 9)
        ).shape == (
            0,
            4,
            3,
            3,
        )


def test_what_is_kept_and_what_is_joined():
    network = nn.Sequential(random_network("4F3-Rabs-N3-PA2/2 > 4C2-relu-PM2", (1, 12, 12)), nn.Flatten())
    # filter bank with tanh and |·|, N with pooling; bare filter bank, relu, pooling; the module that is not known.
    assert [len(chain) for chain in FusedNetwork(network, select_operations("cpu")).chains] == [6]


def test_operations_are_joined_up_to_the_maps_that_are_features():
    network = random_network("4F3-Rabs-N3-PA2/2 >+ PM1-4F2-N3 > 4C1-N3 >+ Rabs-2F1", (1, 12, 12))
    # filter bank and N with pooling | pooling, filter bank, N, filter bank, N | Rabs, filter bank.
    assert [len(chain) for chain in FusedNetwork(network, select_operations("cpu")).chains] == [2, 5, 2]


KEPT = [
    *("4F3 >+ N3-2F3", "4F3 >+ 2F3", "4C3 >+ tanh-2C3", "4C3 >+ Rabs-N3-2C3", "1C1 >+ N3-PM1-1C1"),
    *("4F3-N3 >+ N3-2F3", "4F3-Rabs-N3 >+ PA2/2-2F3", "4F3-N3 >+ Ndiv3-PM2-2F3-N3", "4C3-PM2 >+ N3-2F3"),
    *("4F3-PA2/2 >+ Nsub3-2F3", "4F3-PFA2/1 >+ N3-PFM2-2F3", "4F3-relu >+ N3-2F3", "4F3-N3 >+ shrink-2F3"),
    *("1F1-N3 >+ N3-1F1 >+ N3-1F1-PA1", "4F3-tanh >+ N3-2F3-N3 > N3-2F3"),
]


@pytest.mark.parametrize("text", KEPT)
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize(
    "operations", [select_operations, lambda _device, precision: Reference(precision)], ids=["host", "plain"]
)
def test_what_follows_leaves_kept_maps_as_they_are_to_the_last_bit(text, precision, operations):
    network, x = random_network(text, (2, 15, 13)), noise(2, 2, 15, 13)
    device = operations("cpu", precision)
    with torch.no_grad():
        features = FusedNetwork(network, device)(x)
        below = FusedNetwork(network[0], device)(x).flatten(1)
        assert torch.equal(features[:, : below.shape[1]], below)
        if precision == "float32":
            assert relative(features, network.double()(x.double())) < 1e-5


def test_a_network_with_kept_stages_may_be_run_by_several_threads_unless_a_plugin_made_it():
    network = random_network("4F3-Rabs >+ 4F3", (1, 9, 9))
    assert FusedNetwork(network, select_operations("cpu")).is_reentrant
    network[1].append(type("Foreign", (nn.Module,), {"__module__": "foreign"})())
    assert not FusedNetwork(network, select_operations("cpu")).is_reentrant


def test_no_images_give_no_rows_of_joined_features():
    with torch.no_grad():
        network = random_network("4F3-PA2/2 >+ 2F2", (1, 9, 9))
        assert FusedNetwork(network, select_operations("cpu"))(noise(0, 1, 9, 9)).shape == (0, 4 * 9 + 2 * 4)


def test_a_module_made_from_a_known_one_runs_as_it_is():
    class Doubled(nn.Sequential):
        def forward(self, x):
            return 2 * super().forward(x)

    network, x = Doubled(random_network("4F3-Rabs", (1, 9, 9))), noise(1, 1, 9, 9)
    with torch.no_grad():
        assert torch.equal(FusedNetwork(network, select_operations("cpu"))(x), network(x))


def test_hooks_and_changed_parameters_are_seen():
    network, x = random_network("4F3-Rabs-PA2/2", (1, 9, 9)), noise(1, 1, 9, 9)
    with torch.no_grad():
        fused = FusedNetwork(network, select_operations("cpu"))
        for parameter in network.parameters():
            parameter.mul_(0.5)
        assert relative(fused(x), network(x).double()) < 1e-6


@pytest.mark.parametrize(
    "text, largest", [("8C3-PA2/2 > 1C3", 8 * 8 * 8), ("1C3-PM4", 10 * 10), ("4F1-N3", 4 * 100), ("2C1 >+ 2C1", 400)]
)
def test_the_largest_maps_are_found(text, largest):
    with torch.no_grad():
        assert (
            FusedNetwork(random_network(text, (1, 10, 10)), select_operations("cpu")).find_largest_maps(
                noise(1, 1, 10, 10)
            )
            == largest
        )


def test_the_largest_maps_inside_an_unknown_module_are_found():
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Conv2d(1, 50, 1)

        def forward(self, x):
            return self.inner(x).mean(dim=(2, 3))

    with torch.no_grad():
        assert FusedNetwork(Wide(), select_operations("cpu")).find_largest_maps(noise(1, 1, 4, 4)) == 50 * 16
