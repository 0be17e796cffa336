import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso

from featbench.errors import LearningError
from featbench.learning.predictive_decomposition import (
    Decoder,
    PatchDecoder,
    PredictiveEncoder,
    Schedule,
    Wiring,
    draw_random_atoms,
    find_support,
    learn_predictive_decomposition,
    normalise_atoms,
)
from featbench.sparse.steps import make_soft_threshold, take_fista_steps
from featbench.stages.connection_table import draw_connection_table, make_full_table
from featbench.stages.encoders import build_encoder
from featbench.stages.filters import Bank

ENCODERS = ["tanh", "shrink", "smooth-shrink"]


def sample(*shape, seed=0, dtype=torch.float64):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).to(dtype)


def decoder_of(atoms, lam=0.3, alpha=1.0, steps=3000):
    """A decoder that minimises the energy of the lasso by FISTA; atoms [filters, d] or [filters, maps, size, size]."""
    atoms = atoms if atoms.ndim == 4 else atoms[:, None, None]
    return PatchDecoder(
        atoms,
        alpha,
        lambda gram, c, largest, start: take_fista_steps(gram, c, start, make_soft_threshold(lam), steps, largest),
    )


def energy(y, atoms, codes, prediction, lam, alpha):
    """Mean of ½‖y - Σ_k z_k B_k‖² + λ‖z‖₁ + α/2 ‖z - F‖², one patch after another; atoms B in rows."""
    total = 0.0
    for patch, z, f in zip(y, codes, prediction, strict=True):
        residual = patch - sum(z[k] * atoms[k] for k in range(len(atoms)))
        total += 0.5 * (residual**2).sum() + lam * z.abs().sum() + 0.5 * alpha * ((z - f) ** 2).sum()
    return total / len(y)


def long_ista(y, atoms, prediction, lam, alpha, steps=5000):
    y, atoms, codes, prediction = (t.double().numpy() for t in (y, atoms, prediction.clone(), prediction))
    step = 1 / (np.linalg.norm(atoms, 2) ** 2 + alpha)
    for _ in range(steps):
        gradient = (codes @ atoms - y) @ atoms.T + alpha * (codes - prediction)
        moved = codes - step * gradient
        codes = np.sign(moved) * np.maximum(np.abs(moved) - step * lam, 0)
    return codes


# Codes of patches.


@pytest.mark.parametrize(("inputs", "filters"), [(20, 8), (12, 30), (9, 9)])
@pytest.mark.parametrize(("lam", "alpha"), [(0.2, 1.0), (0.05, 0.1), (0.5, 4.0)])
def test_codes_are_those_of_scikit_learns_lasso_on_the_augmented_problem(inputs, filters, lam, alpha):
    y, prediction = sample(6, inputs, seed=1), sample(6, filters, seed=2)
    decoder = decoder_of(sample(filters, inputs), lam, alpha)
    codes, atoms = decoder.infer(y, prediction), decoder.atoms.flatten(1).T
    augmented = np.vstack([atoms, np.sqrt(alpha) * np.eye(filters)])
    for patch, f, z in zip(y, prediction, codes, strict=True):
        target = np.concatenate([patch, np.sqrt(alpha) * f])
        solver = Lasso(lam / len(target), fit_intercept=False, tol=1e-12, max_iter=100_000)
        np.testing.assert_allclose(z, solver.fit(augmented, target).coef_, atol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_codes_are_those_of_a_long_ista(alpha):
    y, prediction, decoder = sample(8, 30, seed=1), sample(8, 20, seed=2), decoder_of(sample(20, 30), alpha=alpha)
    expected = long_ista(y, decoder.atoms.flatten(1), prediction, 0.3, alpha)
    np.testing.assert_allclose(decoder.infer(y, prediction), expected, atol=1e-8)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_codes_in_single_precision(alpha):
    y, prediction = sample(8, 30, seed=1), sample(8, 20, seed=2)
    decoder = decoder_of(sample(20, 30).float(), alpha=alpha, steps=1000)
    codes = decoder.infer(y.float(), prediction.float())
    assert codes.dtype == torch.float32
    np.testing.assert_allclose(codes, long_ista(y, decoder.atoms.flatten(1), prediction, 0.3, alpha), atol=1e-4)


def test_codes_of_orthonormal_atoms_are_soft_thresholds():
    atoms = torch.linalg.qr(sample(7, 7)).Q
    y, prediction, lam, alpha = sample(5, 7, seed=1), sample(5, 7, seed=2), 0.3, 0.7
    plain = (y @ atoms.T + alpha * prediction) / (1 + alpha)
    expected = plain.sign() * (plain.abs() - lam / (1 + alpha)).clamp_min(0)
    np.testing.assert_allclose(decoder_of(atoms, lam, alpha).infer(y, prediction), expected, atol=1e-10)


def test_a_heavy_penalty_gives_no_code_and_a_heavy_prediction_term_the_prediction():
    atoms, y, prediction = sample(20, 12), sample(5, 12, seed=1), sample(5, 20, seed=2)
    assert not decoder_of(atoms, 1e3, steps=50).infer(y, prediction).any()
    np.testing.assert_allclose(
        decoder_of(atoms, 0.1, 1e6, steps=50).infer(y, prediction), prediction, atol=1e-4, rtol=0
    )


def test_few_iterations_lower_the_energy_of_the_prediction():
    atoms, y, prediction = sample(20, 12), sample(40, 12, seed=1), sample(40, 20, seed=2)
    values = []
    for steps in (0, 1, 5, 15, 2000):
        decoder = decoder_of(atoms, 0.2, steps=steps)
        values.append(float(energy(y, decoder.atoms.flatten(1), decoder.infer(y, prediction), prediction, 0.2, 1.0)))
    assert values == sorted(values, reverse=True)
    assert values[0] > 1.5 * values[4]
    assert values[3] < 1.001 * values[4]


@pytest.mark.parametrize("shape", [(5, 2, 3, 3), (30, 2, 3, 3), (30, 1, 3, 3)])
@pytest.mark.parametrize("alpha", [0.0, 0.7])
def test_inference_is_given_the_problem_in_gram_form_with_its_largest_eigenvalue(shape, alpha):
    given = []
    decoder = PatchDecoder(sample(*shape), alpha, lambda *arguments: given.append(arguments) or arguments[-1])
    y, prediction = sample(4, math.prod(shape[1:]), seed=1), sample(4, shape[0], seed=2)
    assert torch.equal(decoder.infer(y, prediction), prediction)
    ((gram, correlations, largest, start),) = given
    atoms = decoder.atoms.flatten(1).numpy()
    np.testing.assert_allclose(gram, atoms @ atoms.T + alpha * np.eye(len(atoms)), atol=1e-12)
    np.testing.assert_allclose(correlations, y.numpy() @ atoms.T + alpha * prediction.numpy(), atol=1e-12)
    assert largest == pytest.approx(np.linalg.norm(atoms, 2) ** 2 + alpha, rel=1e-9)
    assert start is prediction


# Atoms.


@pytest.mark.parametrize("shape", [(6, 1, 2, 5), (6, 3, 2, 2)])
def test_gradient_of_the_atoms_is_that_of_the_written_energy(shape):
    decoder, y, codes = decoder_of(sample(*shape)), sample(7, math.prod(shape[1:]), seed=1), sample(7, 6, seed=2)
    atoms = decoder.atoms.flatten(1).clone().requires_grad_()
    energy(y, atoms, codes, sample(7, 6, seed=3), 0.2, 1.5).backward()
    found = decoder.gradient(y, codes)
    assert found.shape == shape
    np.testing.assert_allclose(found.flatten(1), atoms.grad, atol=1e-12)


def written_step(decoder, y, codes, rate, curvature):
    """Atoms after one step by loops, `curvature` [filters] given."""
    atoms = decoder.atoms.flatten(1).numpy().copy()
    residual = codes.numpy() @ atoms - y.numpy()
    moved = np.empty_like(atoms)
    for k in range(len(atoms)):
        gradient = sum(codes[n, k].item() * residual[n] for n in range(len(y))) / len(y)
        moved[k] = atoms[k] - rate * gradient / curvature[k]
        moved[k] /= np.linalg.norm(moved[k])
    return moved


def bounds(codes):
    moments = codes.numpy().T @ codes.numpy() / len(codes)
    return np.abs(moments).sum(axis=1)


def test_steps_are_those_of_the_written_loops_with_a_moving_mean_of_the_curvature():
    decoder = decoder_of(sample(5, 8))
    batches = [(sample(20, 8, seed=seed), sample(20, 5, seed=10 + seed)) for seed in range(3)]
    weights, mean = 0.0, np.zeros(5)
    for y, codes in batches:
        mean = 0.9 * mean + 0.1 * bounds(codes)
        weights = 0.9 * weights + 0.1
        expected = written_step(decoder, y, codes, 0.4, mean / weights)
        decoder.step(y, codes, 0.4)
        np.testing.assert_allclose(decoder.atoms.flatten(1), expected, atol=1e-12)


def test_atoms_that_are_seldom_used_do_not_leap():
    codes = sample(50, 6, seed=2)
    codes[:, 4] *= 1e-3
    codes[:, 5] = 0
    decoder, y = decoder_of(sample(6, 10)), sample(50, 10, seed=1)
    before = decoder.atoms.clone()
    curvature = bounds(codes)
    expected = written_step(decoder, y, codes, 0.5, np.maximum(curvature, 0.1 * curvature.mean()))
    decoder.step(y, codes, 0.5)
    np.testing.assert_allclose(decoder.atoms.flatten(1), expected, atol=1e-12)
    assert float((decoder.atoms[4] - before[4]).norm()) < 0.01
    torch.testing.assert_close(decoder.atoms[5], before[5])


def test_batches_without_any_code_leave_the_atoms_alone():
    decoder = decoder_of(sample(6, 10))
    before = decoder.atoms.clone()
    decoder.step(sample(5, 10, seed=1), torch.zeros(5, 6, dtype=torch.float64), 0.5)
    torch.testing.assert_close(decoder.atoms, before)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_steps_lower_the_energy_and_keep_unit_norm_however_much_codes_go_together(rate):
    together = sample(60, 1, seed=3) + 0.01 * sample(60, 12, seed=4)
    for codes in (sample(60, 12, seed=2), together):
        target = decoder_of(sample(12, 15, seed=5)).atoms.flatten(1)
        y, decoder = codes @ target, decoder_of(sample(12, 15))
        errors = []
        for _ in range(30):
            errors.append(float((y - codes @ decoder.atoms.flatten(1)).square().sum()))
            decoder.step(y, codes, rate)
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < 0.5 * errors[0]
        np.testing.assert_allclose(decoder.atoms.flatten(1).norm(dim=1), np.ones(12))


# Which maps a filter sees.

TABLES = [
    (Bank(6, 3, 2), np.array([[0, 2], [3, 1], [2, 3]]), 4),
    (Bank(8, 2, 3), np.array([[4, 0, 2], [1, 2, 3]]), 5),
    (Bank(5, 3, 2), make_full_table(2), 2),
    (Bank(48, 3, 4), draw_connection_table(10, 48, 4, seed=0), 10),
]


@pytest.mark.parametrize(("bank", "table", "maps"), TABLES)
def test_spreading_puts_each_filter_on_its_maps_and_gathering_undoes_it(bank, table, maps):
    wiring, weight = Wiring(bank, table, maps), sample(*bank.shape)
    spread = wiring.spread(weight)
    assert spread.shape == (bank.filters, maps, bank.size, bank.size)
    expected = torch.zeros_like(spread)
    for k in range(bank.filters):
        for place, seen in enumerate(table[k // (bank.filters // len(table))]):
            expected[k, seen] = weight[k, place]
    assert torch.equal(spread, expected)
    assert torch.equal(wiring.gather(spread), weight)
    assert torch.equal(wiring.gather(spread.flatten(1)), weight)


def test_a_filter_sees_the_maps_where_its_weight_is_not_all_zero():
    weight = torch.zeros(2, 3, 2, 2)
    weight[0, 1, 0, 0], weight[1, 2] = 1.0, -1.0
    support = find_support(weight)
    assert support[:, :, 0, 0].tolist() == [[0, 1, 0], [0, 0, 1]]
    assert torch.equal(support, support[:, :, :1, :1].expand(2, 3, 2, 2))


def test_atoms_stay_zero_outside_their_maps():
    bank, table, maps = TABLES[0]
    wiring = Wiring(bank, table, maps)
    decoder = decoder_of(wiring.spread(draw_random_atoms(bank, 0, 1).double()))
    outside = wiring.spread(torch.ones(bank.shape)) == 0
    for seed in range(5):
        decoder.step(sample(30, maps * 9, seed=seed), sample(30, bank.filters, seed=9 + seed), 0.5)
    assert not decoder.atoms[outside].any()
    assert decoder.atoms[~outside].all()


# The encoder.


def written_codes(name, inner, predictor):
    """Codes [n, filters] of W y + b [n, filters], value by value."""
    own = {key: value.detach().numpy() for key, value in predictor.nonlinearity.named_parameters()}
    out = np.empty_like(inner)
    for n, row in enumerate(inner):
        for k, x in enumerate(row):
            if name == "tanh":
                out[n, k] = own["gain"][k] * math.tanh(x)
            elif name == "shrink":
                out[n, k] = math.copysign(max(abs(x) - own["threshold"][k], 0), x)
            else:
                theta, beta = own["threshold"][k], own["sharpness"][k]
                out[n, k] = math.copysign(
                    math.log(math.exp(beta * theta) + math.exp(beta * abs(x)) - 1) / beta - theta, x
                )
    return out


def trained(name, weight, centred=False, seed=5):
    """A predictor whose parameters are none of those it starts from."""
    predictor = PredictiveEncoder(weight, name, 0.3, centred=centred)
    with torch.no_grad():
        for number, parameter in enumerate(predictor.parameters()):
            parameter += 0.1 * sample(*parameter.shape, seed=seed + number).to(parameter)
    return predictor


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("centred", [False, True])
def test_predictions_are_those_of_the_written_formula(name, centred):
    bank, table, maps = TABLES[0]
    predictor = trained(name, Wiring(bank, table, maps).spread(sample(*bank.shape)), centred)
    y = sample(4, maps * 9, seed=1)
    weight = predictor.weight.detach().flatten(1).numpy()
    inner = y.numpy() @ weight.T + predictor.bias.detach().numpy()
    np.testing.assert_allclose(predictor(y).detach(), written_codes(name, inner, predictor), atol=1e-10)


@pytest.mark.parametrize("name", ENCODERS)
def test_windows_are_predicted_as_the_patches_in_them(name):
    predictor, x = trained(name, sample(5, 2, 3, 3)), sample(2, 2, 6, 5, seed=1)
    codes = predictor(x)
    assert codes.shape == (2, 5, 4, 3)
    for r in range(4):
        for c in range(3):
            patches = x[:, :, r : r + 3, c : c + 3].flatten(1)
            torch.testing.assert_close(codes[:, :, r, c], predictor(patches))


def test_encoders_start_from_the_weight_and_from_their_parameters():
    weight = sample(4, 1, 3, 3)
    for name in ENCODERS:
        predictor = PredictiveEncoder(weight, name, 0.3)
        assert torch.equal(predictor.weight, weight)
        assert not predictor.bias.any()
        own = {key: value.tolist() for key, value in predictor.nonlinearity.named_parameters()}
        everything = {"gain": [1.0] * 4, "threshold": [0.3] * 4, "sharpness": [10.0] * 4}
        assert own == {key: everything[key] for key in own}
        assert len(own) == {"tanh": 1, "shrink": 1, "smooth-shrink": 2}[name]


@pytest.mark.parametrize("centred", [False, True])
def test_weights_stay_zero_outside_their_maps_and_blind_to_the_mean_of_what_they_see(centred):
    bank, table, maps = TABLES[0]
    wiring = Wiring(bank, table, maps)
    predictor = PredictiveEncoder(wiring.spread(sample(*bank.shape)), "tanh", 0, centred=centred)
    optimizer = torch.optim.Adam(predictor.parameters(), lr=0.1)
    for seed in range(5):
        optimizer.zero_grad()
        predictor(sample(20, maps * 9, seed=seed)).square().sum().backward()
        optimizer.step()
    outside = wiring.spread(torch.ones(bank.shape)) == 0
    weight = predictor.weight.detach()
    assert not weight[outside].any()
    means = wiring.gather(weight).mean(dim=(1, 2, 3)).abs()
    assert float(means.max()) < 1e-12 if centred else float(means.min()) > 1e-3


@pytest.mark.parametrize("name", ENCODERS)
def test_filters_on_maps_as_they_are_do_what_the_predictor_did_on_scaled_ones(name):
    bank, table, maps = TABLES[0]
    wiring = Wiring(bank, table, maps)
    predictor, atoms = trained(name, wiring.spread(sample(*bank.shape))), wiring.spread(sample(*bank.shape, seed=9))
    filters = predictor.filters(2.5, atoms, wiring)
    assert filters.find_problem(bank) is None
    assert torch.equal(filters.extras["decoder"], wiring.gather(atoms))
    assert not any(tensor.requires_grad for tensor in filters.tensors().values())
    y = sample(4, maps, 3, 3, seed=1)
    codes = build_encoder(name, filters, table)(2.5 * y).flatten(1)
    torch.testing.assert_close(codes, predictor(y.flatten(1)))


# Learning.


class Fixed(Decoder):
    """Codes that are given, whatever is predicted."""

    def __init__(self, atoms, codes):
        super().__init__(atoms)
        self.codes, self.seen = codes, []

    def infer(self, y, prediction):
        self.seen.append((y, prediction))
        return self.codes

    def gradient(self, y, codes):
        return torch.zeros_like(self.atoms)


@pytest.mark.parametrize("alpha", [0.0, 0.4, 3.0])
def test_the_first_update_moves_the_encoder_down_the_written_energy(alpha):
    y, atoms, codes = sample(3, 9), sample(4, 1, 3, 3, seed=1), sample(8, 4, seed=2)
    predictor = trained("tanh", atoms)
    start = {name: parameter.detach().clone() for name, parameter in predictor.named_parameters()}
    decoder = Fixed(atoms, codes)
    reference = {name: tensor.clone().requires_grad_() for name, tensor in start.items()}
    learn_predictive_decomposition(y, decoder, predictor, alpha, Schedule(updates=1, batch=8, rate=0.01), seed=0)
    batch, told = decoder.seen[0]
    assert all(any(torch.equal(row, other) for other in y) for row in batch)
    inner = batch @ reference["free"].flatten(1).T + reference["bias"]
    prediction = reference["nonlinearity.gain"] * torch.tanh(inner)
    torch.testing.assert_close(told, prediction.detach())
    # Without the prediction term the encoder is a regressor of its own, not one that stands still.
    energy(batch, decoder.atoms.flatten(1), codes, prediction, 0.2, alpha or 1.0).backward()
    for name, parameter in predictor.named_parameters():
        # What Adam does first: a step of the whole rate against the sign of each gradient that is not tiny.
        gradient = reference[name].grad
        expected = start[name] - 0.01 * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(parameter.detach(), expected, atol=1e-8, rtol=1e-8)


def test_the_atoms_move_with_the_codes_fixed_at_a_falling_rate():
    rates = []

    class Watched(Fixed):
        def step(self, y, codes, rate):
            assert codes is self.codes
            assert y is self.seen[-1][0]
            rates.append(rate)

    decoder = Watched(sample(4, 1, 3, 3), sample(5, 4))
    learn_predictive_decomposition(
        sample(9, 9), decoder, PredictiveEncoder(decoder.atoms, "tanh", 0), 1.0, Schedule(4, 5, 0.01), 0
    )
    assert rates == pytest.approx([0.5 * 0.5 * (1 + math.cos(math.pi * k / 4)) for k in range(4)])


def test_seed_decides_the_batches_and_nothing_else_does():
    def batches(seed, other=0):
        torch.manual_seed(other)
        decoder = Fixed(sample(4, 1, 3, 3), torch.zeros(6, 4, dtype=torch.float64))
        learn_predictive_decomposition(
            sample(50, 9), decoder, PredictiveEncoder(decoder.atoms, "tanh", 0), 1.0, Schedule(2, 6, 0.01), seed
        )
        return torch.stack([y for y, _ in decoder.seen])

    assert torch.equal(batches(1), batches(1, other=5))
    assert not torch.equal(batches(1), batches(2))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_learning_that_diverges_is_said(value):
    decoder = Fixed(sample(4, 1, 3, 3), torch.full((6, 4), value, dtype=torch.float64))
    with pytest.raises(LearningError, match=r"learning diverged.*lower the rate"):
        learn_predictive_decomposition(
            sample(50, 9), decoder, PredictiveEncoder(decoder.atoms, "tanh", 0), 1.0, Schedule(2, 6, 0.01), 0
        )


def test_random_atoms_have_unit_norm_and_come_from_their_seed():
    bank = Bank(7, 4, 3)
    atoms = draw_random_atoms(bank, 3, 9)
    assert atoms.shape == bank.shape
    torch.testing.assert_close(atoms.flatten(1).norm(dim=1), torch.ones(7))
    assert torch.equal(atoms, draw_random_atoms(bank, 3, 9))
    assert not torch.equal(atoms, draw_random_atoms(bank, 4, 9))
    assert torch.isfinite(normalise_atoms(torch.zeros(2, 1, 2, 2))).all()
