import pytest
import torch
from scipy import stats

from featbench.learning.banks import fill_bank
from featbench.plugins.random import Random
from featbench.registry import Registry
from featbench.stages.filters import Bank

BANK = Bank(filters=64, size=9, fan_in=16)


def weight(seed=0, bank=BANK, **parameters):
    return Random(**parameters).filters(bank, None, seed).weight


@pytest.mark.parametrize("distribution", ["uniform", "normal"])
def test_filters_have_zero_mean_over_all_maps_and_unit_norm(distribution):
    filters = weight(distribution=distribution)
    assert filters.shape == BANK.shape
    assert float(filters.mean(dim=(1, 2, 3)).abs().max()) < 1e-7
    torch.testing.assert_close(filters.flatten(1).norm(dim=1), torch.ones(64))


def test_mean_is_taken_out_over_all_maps_together_not_one_by_one():
    assert float(weight().mean(dim=(2, 3)).abs().max()) > 1e-3


def test_mean_stays_where_it_is_asked_to():
    assert float(weight(zero_mean=False).mean(dim=(1, 2, 3)).abs().max()) > 1e-4


def test_scale_is_the_norm_of_each_filter():
    torch.testing.assert_close(weight(scale=2.5), 2.5 * weight())


def test_uniform_weights_are_uniform_and_normal_ones_normal():
    bank = Bank(filters=200, size=9, fan_in=1)
    spread = {}
    for name in ("uniform", "normal"):
        values = weight(bank=bank, distribution=name, zero_mean=False).flatten(1)
        values = values / values.std(dim=1, keepdim=True)
        spread[name] = stats.kurtosis(values.numpy().ravel())
    # Excess kurtosis: -6/5 for a uniform distribution, 0 for a normal one; each filter's own scale blurs it a little.
    assert spread["uniform"] == pytest.approx(-1.2, abs=0.1)
    assert spread["normal"] == pytest.approx(0, abs=0.1)


def test_weights_are_independent():
    covariance = torch.cov(weight(bank=Bank(2000, 3, 1), zero_mean=False).flatten(1).T)
    torch.testing.assert_close(covariance, torch.eye(9) / 9, atol=0.02, rtol=0)


def test_gains_are_one_and_biases_zero():
    filters = Random().filters(BANK, None, 0)
    assert torch.equal(filters.gain, torch.ones(64))
    assert torch.equal(filters.bias, torch.zeros(64))


def test_gain_is_that_of_every_map_and_leaves_the_filters_alone():
    filters = Random(gain=2.5).filters(BANK, None, 0)
    assert torch.equal(filters.gain, torch.full((64,), 2.5))
    assert torch.equal(filters.weight, Random().filters(BANK, None, 0).weight)


def test_seed_decides_whatever_else_was_drawn():
    first = weight(seed=2**63 - 1)
    torch.manual_seed(5)
    torch.rand(3)
    assert torch.equal(first, weight(seed=2**63 - 1))
    assert not torch.equal(first, weight(seed=1))


def test_filters_of_a_single_weight_are_plus_or_minus_the_scale():
    filters = weight(bank=Bank(filters=50, size=1, fan_in=1), scale=3.0).flatten()
    torch.testing.assert_close(filters.abs(), torch.full((50,), 3.0))
    assert filters.min() < 0 < filters.max()


@pytest.mark.parametrize("bank", [Bank(1, 1, 2), Bank(1, 2, 1), Bank(7, 5, 3)])
def test_small_banks_keep_the_contract(bank):
    assert fill_bank(Random(), bank, None, 0).find_problem(bank) is None


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"distribution": "cauchy"}, "uniform, normal, not 'cauchy'"),
        ({"scale": 0.0}, "scale and gain must be positive, not 0.0 and 1.0"),
        ({"scale": -1.0}, "scale and gain must be positive, not -1.0 and 1.0"),
        ({"gain": 0.0}, "scale and gain must be positive, not 1.0 and 0.0"),
        ({"gain": -2.0}, "scale and gain must be positive, not 1.0 and -2.0"),
    ],
)
def test_bad_parameters_are_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        Random(**parameters)


def test_it_is_registered_as_random():
    assert Registry().learner("random") is Random
    assert Random.family == "random"
