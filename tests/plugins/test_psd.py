import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso
from torch import nn

from featbench.errors import LearningError
from featbench.filters import Bank
from featbench.learner import fill_bank
from featbench.patches import MapSource, PatchSource
from featbench.plugins import psd
from featbench.plugins.psd import Psd, _Model, infer
from featbench.registry import Registry

CPU = torch.device("cpu")
QUICK = {"lam": 0.2, "patches": 600, "updates": 60, "batch": 64}


def unit_columns(rows, columns, seed=0, dtype=torch.float64):
    atoms = np.random.default_rng(seed).standard_normal((rows, columns))
    return torch.from_numpy(atoms / np.linalg.norm(atoms, axis=0)).to(dtype)


def sample(*shape, seed=0, dtype=torch.float64):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).to(dtype)


def energy(y, atoms, codes, prediction, lam, alpha):
    """Mean of ½‖y - B z‖² + λ‖z‖₁ + α/2 ‖z - F‖², one patch after another."""
    total = 0.0
    for patch, z, f in zip(y, codes, prediction, strict=True):
        total += 0.5 * ((patch - atoms @ z) ** 2).sum() + lam * z.abs().sum() + 0.5 * alpha * ((z - f) ** 2).sum()
    return total / len(y)


def long_ista(y, atoms, prediction, lam, alpha, steps=5000):
    y, atoms, codes, prediction = (t.numpy() for t in (y, atoms, prediction.clone(), prediction))
    step = 1 / (np.linalg.norm(atoms, 2) ** 2 + alpha)
    for _ in range(steps):
        gradient = (codes @ atoms.T - y) @ atoms + alpha * (codes - prediction)
        moved = codes - step * gradient
        codes = np.sign(moved) * np.maximum(np.abs(moved) - step * lam, 0)
    return codes


@pytest.mark.parametrize(("inputs", "filters"), [(20, 8), (12, 30), (9, 9)])
@pytest.mark.parametrize(("lam", "alpha"), [(0.2, 1.0), (0.05, 0.1), (0.5, 4.0)])
def test_codes_are_those_of_scikit_learns_lasso_on_the_augmented_problem(inputs, filters, lam, alpha):
    atoms, y, prediction = unit_columns(inputs, filters), sample(6, inputs, seed=1), sample(6, filters, seed=2)
    codes = infer(y, atoms, prediction, lam, alpha, 3000)
    augmented = np.vstack([atoms, np.sqrt(alpha) * np.eye(filters)])
    for patch, f, z in zip(y, prediction, codes, strict=True):
        target = np.concatenate([patch, np.sqrt(alpha) * f])
        solver = Lasso(lam / len(target), fit_intercept=False, tol=1e-12, max_iter=100_000)
        np.testing.assert_allclose(z, solver.fit(augmented, target).coef_, atol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_codes_are_those_of_a_long_ista(alpha):
    atoms, y, prediction = unit_columns(30, 20), sample(8, 30, seed=1), sample(8, 20, seed=2)
    codes = infer(y, atoms, prediction, 0.3, alpha, 3000)
    np.testing.assert_allclose(codes, long_ista(y, atoms, prediction, 0.3, alpha), atol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_codes_in_single_precision(alpha):
    atoms, y, prediction = unit_columns(30, 20), sample(8, 30, seed=1), sample(8, 20, seed=2)
    codes = infer(y.float(), atoms.float(), prediction.float(), 0.3, alpha, 1000)
    assert codes.dtype == torch.float32
    np.testing.assert_allclose(codes, long_ista(y, atoms, prediction, 0.3, alpha), atol=1e-4)


def test_codes_in_double_precision_stay_double():
    atoms, y, prediction = unit_columns(30, 20), sample(8, 30, seed=1), sample(8, 20, seed=2)
    codes = infer(y, atoms, prediction, 0.3, 1.0, 3000)
    assert codes.dtype == torch.float64
    np.testing.assert_allclose(codes, long_ista(y, atoms, prediction, 0.3, 1.0), atol=1e-10)


def test_codes_of_an_orthonormal_dictionary_are_soft_thresholds():
    atoms = torch.linalg.qr(sample(7, 7)).Q
    y, prediction, lam, alpha = sample(5, 7, seed=1), sample(5, 7, seed=2), 0.3, 0.7
    plain = (y @ atoms + alpha * prediction) / (1 + alpha)
    expected = plain.sign() * (plain.abs() - lam / (1 + alpha)).clamp_min(0)
    np.testing.assert_allclose(infer(y, atoms, prediction, lam, alpha, 500), expected, atol=1e-6)


def test_a_heavy_penalty_gives_no_code_and_a_heavy_prediction_term_the_prediction():
    atoms, y, prediction = unit_columns(12, 20), sample(5, 12, seed=1), sample(5, 20, seed=2)
    assert not infer(y, atoms, prediction, 1e3, 1.0, 50).any()
    np.testing.assert_allclose(infer(y, atoms, prediction, 0.1, 1e6, 50), prediction, atol=1e-4)


def test_few_iterations_lower_the_energy_of_the_prediction():
    atoms, y, prediction = unit_columns(12, 20), sample(40, 12, seed=1), sample(40, 20, seed=2)
    values = [
        float(energy(y, atoms, infer(y, atoms, prediction, 0.2, 1.0, steps), prediction, 0.2, 1.0))
        for steps in (0, 1, 5, 15, 2000)
    ]
    assert values == sorted(values, reverse=True)
    assert values[0] > 1.5 * values[4]
    assert values[3] < 1.001 * values[4]


def model_in_double_precision(filters=6, inputs=10):
    model = _Model(filters, inputs, 0, CPU)
    for name, shape in (("atoms", (inputs, filters)), ("encoder", (filters, inputs))):
        setattr(model, name, sample(*shape, seed=len(name)))
    model.gain, model.bias = sample(filters, seed=8), sample(filters, seed=9)
    return model


@pytest.mark.parametrize("alpha", [0.3, 1.0, 5.0])
def test_gradients_are_those_of_the_written_energy(alpha):
    model, y, codes = model_in_double_precision(), sample(12, 10, seed=1), sample(12, 6, seed=2)
    model.set_gradients(y, codes, alpha)
    atoms, encoder, gain, bias = (t.clone().requires_grad_() for t in model.parameters())
    prediction = gain * torch.tanh(y @ encoder.T + bias)
    energy(y, atoms, codes, prediction, 0.2, alpha).backward()
    for parameter, reference in zip(model.parameters(), (atoms, encoder, gain, bias), strict=True):
        np.testing.assert_allclose(parameter.grad, reference.grad, atol=1e-12)


def test_without_the_prediction_term_the_encoder_is_a_regressor_of_its_own():
    with_term, without = model_in_double_precision(), model_in_double_precision()
    y, codes = sample(12, 10, seed=1), sample(12, 6, seed=2)
    with_term.set_gradients(y, codes, 1.0)
    without.set_gradients(y, codes, 0.0)
    for one, other in zip(with_term.parameters(), without.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_prediction_is_gain_times_tanh():
    model, y = model_in_double_precision(), sample(3, 10, seed=1)
    expected = [
        [float(model.gain[j]) * np.tanh(float(model.encoder[j] @ patch) + float(model.bias[j])) for j in range(6)]
        for patch in y
    ]
    np.testing.assert_allclose(model.predict(y), expected, atol=1e-12)


def sparse_patches(count, seed, filters=16, size=5, maps=1):
    """Images of the size of a patch, each a sum of two or three atoms of zero mean; and those atoms, as rows."""
    generator = np.random.default_rng(99)
    atoms = generator.standard_normal((filters, maps * size * size))
    atoms -= atoms.mean(axis=1, keepdims=True)
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    generator = np.random.default_rng(seed)
    codes = np.zeros((count, filters))
    for row in codes:
        chosen = generator.choice(filters, generator.integers(2, 4), replace=False)
        row[chosen] = generator.choice([-1, 1], len(chosen)) * generator.uniform(1, 3, len(chosen))
    patches = codes @ atoms + 0.01 * generator.standard_normal((count, maps * size * size))
    return torch.from_numpy(patches.reshape(count, maps, size, size)).float(), atoms


def source(images, size=5, seed=0):
    return PatchSource(MapSource(images, nn.Identity(), CPU), size, seed)


def learn(seed=0, bank=None, images=None, **parameters):
    images = sparse_patches(600, 0)[0] if images is None else images
    bank = bank or Bank(16, 5, 1)
    return fill_bank(Psd(**{**QUICK, **parameters}), bank, source(images, bank.size), seed)


def energy_of(filters, images, scale, lam=0.2, alpha=1.0):
    """Mean energy of patches at the best codes, from what the learner returned alone."""
    patches = images.flatten(1).double()
    prediction = filters.gain.double() * torch.tanh(
        patches @ filters.weight.flatten(1).double().T + filters.bias.double()
    )
    y = (patches - patches.mean(dim=1, keepdim=True)) / scale
    atoms = filters.extras["decoder"].flatten(1).double().T
    codes = torch.from_numpy(long_ista(y, atoms, prediction, lam, alpha, 400))
    return float(energy(y, atoms, codes, prediction, lam, alpha))


def test_energy_of_held_out_patches_falls_as_it_learns():
    images, held_out = sparse_patches(2000, 0)[0], sparse_patches(200, 1)[0]
    patches = source(images).sample(2000).flatten(1)
    scale = float((patches - patches.mean(dim=1, keepdim=True)).square().mean().sqrt())
    energies = [
        energy_of(learn(images=images, patches=2000, updates=updates, batch=128), held_out, scale)
        for updates in (1, 50, 400)
    ]
    assert energies[1] < 0.95 * energies[0]
    assert energies[2] < 0.9 * energies[1]


def test_atoms_that_made_the_patches_are_found():
    images, atoms = sparse_patches(3000, 0)
    filters = learn(images=images, lam=0.5, patches=3000, updates=500, batch=128, rate=0.02)
    decoder = filters.extras["decoder"].flatten(1).numpy()
    found = np.abs(atoms @ decoder.T).max(axis=1)
    generator = np.random.default_rng(5)
    chance = []
    for _ in range(20):
        other = generator.standard_normal(decoder.shape)
        other -= other.mean(axis=1, keepdims=True)
        chance.append(np.abs(atoms @ (other / np.linalg.norm(other, axis=1, keepdims=True)).T).max(axis=1).mean())
    assert max(chance) < 0.6
    assert found.mean() > 0.9


def test_encoder_predicts_the_best_codes_better_than_nothing():
    images = sparse_patches(3000, 0)[0]
    filters = learn(images=images, patches=3000, updates=400, batch=128)
    held_out = sparse_patches(200, 1)[0].flatten(1).double()
    y = held_out - held_out.mean(dim=1, keepdim=True)
    y = y / y.square().mean().sqrt()
    atoms = filters.extras["decoder"].flatten(1).double().T
    codes = long_ista(y, atoms, torch.zeros(200, 16, dtype=torch.float64), 0.2, 0.0, 1000)
    predicted = filters.gain * torch.tanh(held_out.float() @ filters.weight.flatten(1).T + filters.bias)
    assert ((predicted.numpy() - codes) ** 2).sum() < 0.5 * (codes**2).sum()


@pytest.mark.parametrize("bank", [Bank(16, 5, 1), Bank(40, 5, 1), Bank(6, 3, 2), Bank(4, 1, 3)])
def test_atoms_have_unit_norm_and_everything_the_shape_asked_for(bank):
    images = sample(40, bank.fan_in, 9, 9, dtype=torch.float32)
    filters = learn(bank=bank, images=images)
    assert filters.weight.shape == bank.shape
    assert filters.extras["decoder"].shape == bank.shape
    np.testing.assert_allclose(filters.extras["decoder"].flatten(1).norm(dim=1), np.ones(bank.filters), atol=1e-5)


def test_filters_see_no_offset():
    assert float(learn().weight.mean(dim=(1, 2, 3)).abs().max()) < 1e-6
    assert float(learn(centre=False).weight.mean(dim=(1, 2, 3)).abs().max()) > 1e-3


def test_brightness_and_contrast_of_the_images_are_taken_out():
    images = sparse_patches(600, 0)[0]
    plain, changed = learn(images=images), learn(images=4 * images + 3)
    torch.testing.assert_close(changed.weight, plain.weight / 4, atol=1e-2, rtol=0)
    torch.testing.assert_close(changed.extras["decoder"], plain.extras["decoder"], atol=1e-2, rtol=0)


def test_seed_decides_the_filters():
    one, same, other = learn(seed=1), learn(seed=1), learn(seed=2)
    for name, tensor in one.tensors().items():
        assert torch.equal(tensor, same.tensors()[name])
        assert not torch.equal(tensor, other.tensors()[name])


def test_seed_decides_the_order_of_the_patches_too(monkeypatch):
    monkeypatch.setattr(psd, "_Model", lambda filters, inputs, seed, device: _Model(filters, inputs, 0, device))
    assert not torch.equal(learn(seed=1).weight, learn(seed=2).weight)


def test_global_random_state_plays_no_part():
    torch.manual_seed(1)
    first = learn(updates=3)
    torch.manual_seed(2)
    assert torch.equal(learn(updates=3).weight, first.weight)


def test_single_pixels_can_be_learned_from():
    filters = learn(bank=Bank(4, 1, 1), images=sample(20, 1, 6, 6, dtype=torch.float32), updates=5)
    assert torch.isfinite(filters.weight).all()


@pytest.mark.parametrize(
    "parameters",
    [{"lam": 0.0}, {"lam": -0.1}, {"alpha": -1.0}, {"rate": 0.0}, {"rate": -1.0}],
)
def test_energy_without_a_minimum_is_refused(parameters):
    with pytest.raises(ValueError, match="lam > 0, alpha ≥ 0 and rate > 0 are needed"):
        Psd(**parameters)


@pytest.mark.parametrize("name", ["patches", "updates", "batch", "iterations"])
def test_nothing_to_do_is_refused(name):
    with pytest.raises(ValueError, match="must be at least 1"):
        Psd(**{name: 0})


@pytest.mark.parametrize("value", [0.0, 0.3, 7.0])
@pytest.mark.parametrize("maps", [1, 3])
def test_constant_patches_are_refused(value, maps):
    with pytest.raises(LearningError, match="constant"):
        learn(bank=Bank(4, 5, maps), images=torch.full((10, maps, 8, 8), value))


def test_patches_that_are_not_finite_are_refused():
    images = sparse_patches(50, 0)[0]
    images[:, 0, 2, 2] = float("nan")
    with pytest.raises(LearningError):
        learn(images=images)


def test_no_patches_are_refused():
    with pytest.raises(LearningError, match="PSD learns from patches and was given none"):
        Psd().filters(Bank(4, 5, 1), None, 0)


def test_it_is_registered_as_an_unsupervised_learner():
    assert Registry().learner("psd") is Psd
    assert Psd.family == "unsupervised"
