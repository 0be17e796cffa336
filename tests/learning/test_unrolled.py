from functools import cache

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import gradcheck
from torch.func import functional_call
from torch.nn.utils import parametrize

from featbench.errors import LearningError
from featbench.learning.unrolled import (
    Lcod,
    Lista,
    LowRank,
    draw_random_weights,
    factorise_to_rank,
    keep_largest,
    make_descent_weights,
    make_ista_weights,
    train_unrolled,
)
from featbench.sparse import feature_sign

NETWORKS = [Lista, Lcod]
LAM = 0.2


def sample(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def unit_atoms(inputs, units, seed=0):
    atoms = sample(inputs, units, seed=seed)
    return atoms / atoms.norm(dim=0)


def shrink(values, threshold):
    return np.sign(values) * np.maximum(np.abs(values) - threshold, 0)


def build(network, start, steps):
    return network(start.mixing.unsqueeze(0), start.threshold, steps)


# What they are before training: steps of their solvers.


@pytest.mark.parametrize(("inputs", "units"), [(10, 20), (12, 6)])
@pytest.mark.parametrize("steps", [0, 1, 4, 30])
def test_lista_begins_as_one_step_more_of_ista(inputs, units, steps):
    atoms, x = unit_atoms(inputs, units), sample(7, inputs, seed=1)
    start = make_ista_weights(atoms, LAM)
    found = build(Lista, start, steps)(x @ start.encoder.T)
    d, lipschitz, expected = atoms.numpy(), np.linalg.norm(atoms.numpy(), 2) ** 2, np.zeros((7, units))
    for _ in range(steps + 1):
        gradient = (expected @ d.T - x.numpy()) @ d
        expected = shrink(expected - gradient / lipschitz, LAM / lipschitz)
    np.testing.assert_allclose(found.detach(), expected, atol=1e-10)


def written_descent(x, encoder, mixing, threshold, steps):
    """Gregor, LeCun 2010, algorithms 2 and 5, of one patch x by loops."""
    b = [sum(encoder[k, i] * x[i] for i in range(len(x))) for k in range(len(encoder))]
    z = [0.0] * len(b)
    for _ in range(steps):
        target = [float(shrink(b[k], threshold[k])) for k in range(len(b))]
        k = max(range(len(b)), key=lambda k: (abs(target[k] - z[k]), -k))
        for j in range(len(b)):
            b[j] += mixing[j, k] * (target[k] - z[k])
        z[k] = target[k]
    return [float(shrink(b[k], threshold[k])) for k in range(len(b))]


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("steps", [0, 1, 5, 40])
def test_lcod_takes_the_written_steps(steps, trained):
    atoms, x = unit_atoms(8, 12), sample(4, 8, seed=1)
    start = make_descent_weights(atoms, LAM)
    encoder, mixing, threshold = start.encoder, start.mixing, start.threshold
    if trained:
        # Not symmetric, and with thresholds of their own: what training may lead to.
        mixing, threshold = mixing + 0.1 * sample(12, 12, seed=2), threshold + 0.05 * sample(12, seed=3)
    found = Lcod(mixing.unsqueeze(0), threshold, steps)(x @ encoder.T).detach()
    for row, patch in zip(found, x, strict=True):
        expected = written_descent(patch.numpy(), encoder.numpy(), mixing.numpy(), threshold.numpy(), steps)
        np.testing.assert_allclose(row, expected, atol=1e-10)


@pytest.mark.parametrize(
    ("network", "begin", "steps"), [(Lista, make_ista_weights, 3000), (Lcod, make_descent_weights, 2500)]
)
def test_many_steps_give_the_optimal_codes(network, begin, steps):
    atoms, x = unit_atoms(10, 15), sample(6, 10, seed=1)
    start = begin(atoms, LAM)
    expected = feature_sign(x, atoms, LAM, tolerance=1e-10).codes
    np.testing.assert_allclose(build(network, start, steps)(x @ start.encoder.T).detach(), expected, atol=1e-5)


def test_starts_are_the_matrices_of_the_paper():
    atoms = unit_atoms(9, 14)
    d, lipschitz = atoms.numpy(), np.linalg.norm(atoms.numpy(), 2) ** 2
    ista, descent = make_ista_weights(atoms, LAM), make_descent_weights(atoms, LAM)
    np.testing.assert_allclose(ista.encoder, d.T / lipschitz, atol=1e-12)
    np.testing.assert_allclose(ista.mixing, np.eye(14) - d.T @ d / lipschitz, atol=1e-12)
    np.testing.assert_allclose(ista.threshold, np.full(14, LAM / lipschitz), atol=1e-12)
    np.testing.assert_allclose(descent.encoder, d.T, atol=1e-12)
    np.testing.assert_allclose(descent.mixing, np.eye(14) - d.T @ d, atol=1e-12)
    np.testing.assert_allclose(np.diag(descent.mixing), 0, atol=1e-12)
    np.testing.assert_allclose(descent.threshold, np.full(14, LAM), atol=1e-12)
    one, same, other = (draw_random_weights(atoms, LAM, seed) for seed in (0, 0, 1))
    assert torch.equal(one.mixing, same.mixing)
    assert torch.equal(one.encoder, same.encoder)
    assert not torch.equal(one.mixing, other.mixing)
    assert one.encoder.shape == (14, 9)
    assert float(one.encoder.norm(dim=1).mean()) == pytest.approx(1, abs=0.2)
    assert float(one.mixing.norm(dim=1).mean()) == pytest.approx(0.5, abs=0.1)


# Groups and maps.


@pytest.mark.parametrize("network", NETWORKS)
def test_groups_act_apart(network):
    mixing, threshold, x = 0.2 * sample(3, 4, 4), sample(12, seed=1).abs() / 5, sample(9, 12, seed=2)
    together = network(mixing, threshold, 6)(x)
    for group in range(3):
        own = slice(4 * group, 4 * group + 4)
        alone = network(mixing[group : group + 1], threshold[own], 6)(x[:, own])
        torch.testing.assert_close(together[:, own], alone)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("groups", [1, 2])
def test_maps_are_coded_position_by_position(network, groups):
    unrolled = network(0.2 * sample(groups, 3, 3), sample(3 * groups, seed=1).abs() / 5, 4)
    x = sample(2, 3 * groups, 4, 5, seed=2)
    codes = unrolled(x)
    assert codes.shape == x.shape
    for r in range(4):
        for c in range(5):
            torch.testing.assert_close(codes[:, :, r, c], unrolled(x[:, :, r, c]))


# A smaller S.


@pytest.mark.parametrize("part", [0.01, 0.1, 0.37, 0.5, 0.999, 1.0])
def test_what_is_kept_is_what_interacts_most(part):
    atoms = unit_atoms(8, 15)
    mixing, interaction = make_ista_weights(atoms, LAM).mixing, make_descent_weights(atoms, LAM).mixing
    kept = keep_largest(mixing, interaction, part)
    count = max(1, round(part * 225))
    present = kept != 0
    assert int(present.sum()) == count
    assert torch.equal(kept[present], mixing[present])
    if count < 225:
        strengths = (torch.eye(15, dtype=torch.float64) - atoms.T @ atoms).abs()
        assert float(strengths[present].min()) >= float(strengths[~present].max())


def test_at_least_one_entry_is_kept():
    mixing = sample(5, 5)
    assert int((keep_largest(mixing, mixing, 1e-9) != 0).sum()) == 1


@pytest.mark.parametrize("rank", [1, 3, 12])
def test_low_rank_is_the_best_approximation(rank):
    mixing = sample(12, 12)
    left, right = factorise_to_rank(mixing, rank)
    assert left.shape == right.shape == (12, rank)
    values = np.linalg.svd(mixing.numpy(), compute_uv=False)
    # Eckart, Young: what remains are the singular values that were left out.
    assert float((mixing - left @ right.T).norm()) == pytest.approx(np.sqrt((values[rank:] ** 2).sum()), abs=1e-10)
    assert np.linalg.matrix_rank((left @ right.T).numpy()) == rank


# Gradients and training.


@pytest.mark.parametrize("network", NETWORKS)
def test_gradients_are_those_of_finite_differences(network):
    mixing, threshold = 0.3 * sample(2, 3, 3), 0.05 + 0.1 * sample(6, seed=1).abs()
    unrolled, x = network(mixing, threshold, 3), (2 * sample(4, 6, seed=2)).requires_grad_()

    def run(x, free, threshold):
        return functional_call(unrolled, {"free": free, "threshold": threshold}, (x,))

    assert gradcheck(run, (x, mixing.requires_grad_(), threshold.requires_grad_()))


@pytest.mark.parametrize("network", NETWORKS)
def test_gradients_with_a_low_rank_are_those_of_finite_differences(network):
    low_rank = LowRank(*factorise_to_rank(0.3 * sample(4, 4), 2))
    threshold, x = 0.05 + 0.1 * sample(4, seed=1).abs(), 2 * sample(4, 4, seed=2)

    def run(left, right):
        mixing = functional_call(low_rank, {"left": left, "right": right}, (None,))
        return functional_call(network(mixing.detach(), threshold, 3), {"free": mixing}, (x,))

    assert gradcheck(run, tuple(p.detach().clone().requires_grad_() for p in low_rank.parameters()))


@cache
def planted(count, seed=0, inputs=10, units=16):
    """Patches of a dictionary, their optimal codes, and the dictionary."""
    atoms, generator = unit_atoms(inputs, units, seed=42), np.random.default_rng(seed)
    codes = generator.standard_normal((count, units)) * (generator.random((count, units)) < 0.15)
    patches = torch.from_numpy(2 * codes) @ atoms.T + 0.02 * torch.from_numpy(
        generator.standard_normal((count, inputs))
    )
    patches = patches.float()
    return patches, feature_sign(patches, atoms.float(), LAM).codes, atoms.float()


def trained(
    network, steps, begin=make_ista_weights, updates=300, seed=0, change=lambda start, unrolled: unrolled, rate=0.003
):
    """Train on planted patches; returns encoder and network, and the mean error of held-out codes."""
    patches, codes, atoms = planted(1500)
    start = begin(atoms, LAM)
    unrolled = change(start, build(network, start, steps))
    encoder = nn.Linear(10, 16, bias=False)
    with torch.no_grad():
        encoder.weight.copy_(start.encoder)
    train_unrolled(encoder, unrolled, patches, codes, updates, 64, rate, seed)
    held_out, wanted, _ = planted(500, seed=1)
    with torch.no_grad():
        return encoder, unrolled, float((unrolled(encoder(held_out)) - wanted).square().sum(dim=1).mean())


@pytest.mark.parametrize(
    ("network", "begin", "steps"), [(Lista, make_ista_weights, 2), (Lcod, make_descent_weights, 6)]
)
def test_training_lowers_the_error_of_held_out_codes(network, begin, steps):
    before, after = (trained(network, steps, begin, updates)[2] for updates in (0, 300))
    assert after < 0.7 * before


def test_more_steps_of_lista_predict_better():
    errors = [trained(Lista, steps)[2] for steps in (3, 1, 0)]
    assert errors[0] < 0.9 * errors[1] < 0.81 * errors[2]


@pytest.mark.parametrize("network", NETWORKS)
def test_more_steps_from_a_random_start_train_too(network):
    def begin(atoms, lam):
        return draw_random_weights(atoms, lam, 0)

    before, after = (trained(network, 3, begin, updates)[2] for updates in (0, 300))
    assert after < 0.7 * before


@pytest.mark.parametrize("network", NETWORKS)
def test_entries_of_s_that_are_removed_stay_removed(network):
    def remove(start, unrolled):
        kept = keep_largest(start.mixing, start.mixing, 0.3)
        return network(kept.unsqueeze(0), start.threshold, unrolled.steps, zeros_stay=True)

    _, unrolled, _ = trained(network, 3, updates=20, change=remove)
    mixing = unrolled.mixing.detach()[0]
    start = make_ista_weights(planted(10)[2], LAM).mixing
    kept = keep_largest(start, start, 0.3) != 0
    assert torch.equal(mixing != 0, kept)
    assert not torch.allclose(mixing[kept], start[kept], atol=1e-3)


def test_s_of_low_rank_stays_of_low_rank_and_is_trained():
    def reduce(start, unrolled):
        parametrize.register_parametrization(unrolled, "free", LowRank(*factorise_to_rank(start.mixing, 3)))
        return unrolled

    _, unrolled, _ = trained(Lista, 2, updates=50, change=reduce)
    values = np.linalg.svd(unrolled.mixing.detach()[0].numpy(), compute_uv=False)
    assert values[3] < 1e-5 * values[0]
    assert values[2] > 1e-3 * values[0]
    left, right = factorise_to_rank(make_ista_weights(planted(10)[2], LAM).mixing, 3)
    assert not torch.allclose(unrolled.mixing.detach()[0], left @ right.T, atol=1e-3)
    errors = [trained(Lista, 2, updates=updates, change=reduce)[2] for updates in (0, 200)]
    assert errors[1] < 0.7 * errors[0]


def test_seed_decides_the_batches_and_global_random_state_plays_no_part():
    torch.manual_seed(1)
    one = trained(Lista, 1, updates=3, seed=1)[1]
    torch.manual_seed(2)
    same, other = trained(Lista, 1, updates=3, seed=1)[1], trained(Lista, 1, updates=3, seed=2)[1]
    assert torch.equal(one.mixing, same.mixing)
    assert not torch.equal(one.mixing, other.mixing)


def test_training_that_diverges_is_said():
    with pytest.raises(LearningError, match="training the unrolled network diverged: lower the rate"):
        trained(Lista, 3, updates=5, rate=1e30)


def test_training_works_where_gradients_are_off():
    with torch.no_grad():
        assert trained(Lista, 1, updates=100)[2] < 0.9 * trained(Lista, 1, updates=0)[2]
