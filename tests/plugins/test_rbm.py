import itertools

import numpy as np
import pytest
import torch
from torch import nn

import featbench
from featbench.errors import LearningError, UsageError
from featbench.learning.banks import fill_bank
from featbench.learning.patches import MapSource, PatchSource
from featbench.plugins.rbm import BoltzmannMachine, Rbm
from featbench.registry import Registry
from featbench.stages.filters import Bank

CPU = torch.device("cpu")
QUICK = {"patches": 500, "updates": 50, "batch": 32}


def machine(hidden=3, visible=2, seed=0):
    generator = np.random.default_rng(seed)
    made = BoltzmannMachine(hidden, visible, 0, CPU)
    made.weight = torch.from_numpy(generator.standard_normal((hidden, visible)))
    made.visible, made.hidden = (torch.from_numpy(generator.standard_normal(n)) for n in (visible, hidden))
    return made


def energy(made, v, h):
    """½‖v - b‖² - cᵀh - hᵀW v, as written."""
    weight, b, c = (parameter.numpy() for parameter in made.parameters())
    return 0.5 * ((v - b) ** 2).sum() - c @ h - h @ weight @ v


def states(hidden):
    return [np.array(state, dtype=float) for state in itertools.product((0, 1), repeat=hidden)]


def log_partition(made):
    """Log of the sum over h of the integral over v of e^{-E}: a Gaussian integral for each h."""
    weight, b, c = made.parameters()
    terms = []
    for state in states(len(c)):
        h = torch.from_numpy(state).to(c)
        centre = b + h @ weight
        terms.append(c @ h + 0.5 * (centre.square().sum() - b.square().sum()))
    return torch.logsumexp(torch.stack(terms), 0) + len(b) / 2 * np.log(2 * np.pi)


def log_likelihood(made, rows):
    return -made.free_energy(rows).mean() - log_partition(made)


def test_free_energy_sums_over_the_hidden_states():
    made = machine()
    for v in np.random.default_rng(1).standard_normal((5, 2)):
        expected = -np.log(sum(np.exp(-energy(made, v, h)) for h in states(3)))
        assert float(made.free_energy(torch.from_numpy(v)[None])) == pytest.approx(expected)


def test_activity_is_the_posterior_of_the_hidden_units():
    made = machine()
    for v in np.random.default_rng(1).standard_normal((5, 2)):
        weights = np.array([np.exp(-energy(made, v, h)) for h in states(3)])
        expected = weights @ np.array(states(3)) / weights.sum()
        np.testing.assert_allclose(made.compute_activity(torch.from_numpy(v)[None])[0], expected, atol=1e-12)


def test_partition_function_of_one_visible_unit_is_the_integral():
    made = machine(hidden=3, visible=1)
    grid = torch.linspace(-20, 20, 20_001, dtype=torch.float64)
    integral = torch.exp(-made.free_energy(grid[:, None])).sum() * 0.002
    assert float(torch.log(integral)) == pytest.approx(float(log_partition(made)), abs=1e-6)


def test_ascent_is_the_gradient_of_the_likelihood_once_the_chains_have_run():
    made, rows = machine(), torch.from_numpy(np.random.default_rng(1).standard_normal((50, 2)))
    parameters = [parameter.requires_grad_() for parameter in made.parameters()]
    gradients = torch.autograd.grad(log_likelihood(made, rows), parameters)
    made.weight, made.visible, made.hidden = (parameter.detach() for parameter in parameters)
    chains = made.run_gibbs(rows.repeat(2000, 1), 100, torch.Generator().manual_seed(0))
    for found, expected in zip(made.compute_ascent(rows, chains), gradients, strict=True):
        np.testing.assert_allclose(found, expected, atol=0.02)


def test_one_step_of_gibbs_sampling_has_the_right_moments():
    made = machine()
    v = torch.from_numpy(np.random.default_rng(1).standard_normal((1, 2)))
    sampled = made.run_gibbs(v.repeat(200_000, 1), 1, torch.Generator().manual_seed(0))
    on = made.compute_activity(v)
    mean = made.visible + on @ made.weight
    covariance = torch.eye(2) + made.weight.T @ torch.diag((on * (1 - on))[0]) @ made.weight
    np.testing.assert_allclose(sampled.mean(dim=0), mean[0], atol=0.02)
    np.testing.assert_allclose(torch.cov(sampled.T), covariance, atol=0.03)


def blobs(count, seed):
    """Patches [count, 1, 2, 2] of four kinds, each with noise."""
    generator = np.random.default_rng(seed)
    kinds = np.array([[3, -1, -1, -1], [-1, 3, -1, -1], [2, 2, -2, -2], [0, 0, 0, 0]], dtype=float)
    rows = kinds[generator.integers(4, size=count)] + 0.3 * generator.standard_normal((count, 4))
    return torch.from_numpy(rows.reshape(count, 1, 2, 2)).float()


@pytest.mark.parametrize("persistent", [False, True])
def test_likelihood_of_held_out_patches_rises(persistent):
    learner = Rbm(persistent=persistent, updates=2000, batch=64, rate=0.02, sparsity_cost=0.0, whiten=False, sigma=0.5)
    training, held_out = blobs(2000, 0).flatten(1), blobs(500, 1).flatten(1)
    made = BoltzmannMachine(6, 4, 0, CPU)
    before = float(log_likelihood(made, held_out))
    learner._learn(made, training, 0)
    assert float(log_likelihood(made, held_out)) > before + 1


def test_chains_go_on_only_where_they_are_persistent(monkeypatch):
    starts = []

    def run_gibbs(self, v, steps, generator):
        starts.append(v)
        return v + 100

    monkeypatch.setattr(BoltzmannMachine, "run_gibbs", run_gibbs)
    rows = blobs(50, 0).flatten(1)
    Rbm(persistent=True, updates=3, batch=8)._learn(BoltzmannMachine(2, 4, 0, CPU), rows, 0)
    assert torch.equal(starts[1], starts[0] + 100)
    assert torch.equal(starts[2], starts[1] + 100)
    starts.clear()
    Rbm(updates=3, batch=8)._learn(BoltzmannMachine(2, 4, 0, CPU), rows, 0)
    assert all(float(start.abs().max()) < 50 for start in starts)


def images(count=40, maps=1, side=10, seed=0):
    noise = np.random.default_rng(seed).laplace(size=(count, maps, side + 1, side + 1)) ** 3
    return torch.from_numpy(noise[..., 1:, 1:] + noise[..., :-1, 1:]).float()


def source(maps, size):
    return PatchSource(MapSource(maps, nn.Identity(), CPU), size, 0)


def learn(bank=None, maps=None, seed=0, **parameters):
    bank = bank or Bank(6, 4, 1)
    maps = images(maps=bank.fan_in) if maps is None else maps
    return fill_bank(Rbm(**{**QUICK, **parameters}), bank, source(maps, bank.size), seed)


def test_sparsity_draws_the_mean_activity_to_its_target():
    maps = images()
    for active, target in ((0.3, 0.05), (1.8, 0.3), (5.0, 0.5)):
        filters = learn(maps=maps, active=active, sparsity_cost=10.0, updates=1000)
        codes = Rbm().encoder(filters, np.array([[0]]))(source(maps, 4).sample(500))
        assert codes.detach().mean() == pytest.approx(target, abs=0.04)


@pytest.mark.parametrize("whiten", [True, False])
@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e3])
def test_what_f_stands_for_is_the_activity_of_the_machine_it_learned(monkeypatch, whiten, factor):
    seen = {}
    original = Rbm._learn

    def remember(self, made, rows, seed):
        original(self, made, rows, seed)
        seen.update(machine=made, rows=rows)

    monkeypatch.setattr(Rbm, "_learn", remember)
    maps = factor * images()
    filters = learn(maps=maps, whiten=whiten, components=9)
    codes = Rbm().encoder(filters, np.array([[0]]))(source(maps, 4).sample(500)).flatten(1)
    torch.testing.assert_close(codes, seen["machine"].compute_activity(seen["rows"]), atol=1e-4, rtol=1e-3)
    assert seen["rows"].shape == (500, 9 if whiten else 16)


def test_decoder_holds_what_a_hidden_unit_adds_to_a_patch(monkeypatch):
    seen = {}
    monkeypatch.setattr(Rbm, "_learn", lambda self, made, rows, seed: seen.update(machine=made))
    decoder = learn(whiten=False, sigma=0.7).extras["decoder"].flatten(1)
    torch.testing.assert_close(decoder, 0.7 * seen["machine"].weight)


def test_filters_see_no_offset_unless_asked_to():
    assert float(learn().weight.mean(dim=(1, 2, 3)).abs().max()) < 1e-4
    assert float(learn(centre=False).weight.mean(dim=(1, 2, 3)).abs().max()) > 1e-4


@pytest.mark.parametrize("persistent", [False, True])
def test_seed_decides_the_filters(persistent):
    one, same, other = (learn(seed=seed, persistent=persistent) for seed in (1, 1, 2))
    for name, tensor in one.tensors().items():
        assert torch.equal(tensor, same.tensors()[name])
    assert not torch.equal(one.weight, other.weight)


@pytest.mark.parametrize("bank", [Bank(4, 1, 1), Bank(4, 1, 3), Bank(20, 3, 1)])
def test_small_filters_can_be_learned(bank):
    assert learn(bank).weight.shape == bank.shape


def test_divergence_is_said():
    with pytest.raises(LearningError, match=r"the RBM diverged: a rate smaller than 1e\+30 is needed"):
        learn(rate=1e30)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        *(({name: 0}, "must be at least 1") for name in ("patches", "updates", "batch", "steps", "components")),
        ({"active": 0.0}, "active > 0"),
        ({"sparsity_cost": -1.0}, "sparsity_cost ≥ 0"),
        *(({name: 0.0}, "> 0") for name in ("rate", "epsilon", "sigma")),
        ({"momentum": 1.0}, "momentum < 1"),
        ({"momentum": -0.1}, "momentum < 1"),
    ],
)
def test_parameters_without_sense_are_refused(parameters, message):
    with pytest.raises(UsageError, match=f"rbm: .*{message}"):
        Rbm.create(parameters)


def test_bad_patches_are_refused():
    with pytest.raises(LearningError, match="RBM learns from patches and was given none"):
        Rbm().filters(Bank(4, 5, 1), None, 0)
    with pytest.raises(LearningError, match="constant"):
        learn(maps=torch.full((10, 1, 9, 9), 0.3))
    with pytest.raises(LearningError, match="RBM cannot learn 6 filters from 5 patches"):
        learn(patches=5)


def test_two_stages_and_refinement():
    pixels, labels = images(40, side=16)[:, 0].numpy(), np.arange(40) % 2
    extractor = featbench.Extractor(
        "8F5-Rabs-N3-PA2/2 > 16F3:4-Rabs-PA2", "rbm", learner_params={"patches": 300, "updates": 20}, refined=True
    )
    assert np.isfinite(extractor.fit(pixels, labels).transform(pixels)).all()


def test_it_is_registered_as_an_unsupervised_learner():
    assert Registry().learner("rbm") is Rbm
    assert Rbm.family == "unsupervised"
