import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

import featbench
from featbench.errors import LearningError, UsageError
from featbench.features.extraction import extract
from featbench.learning.banks import fill_bank
from featbench.learning.networks import assemble, find_refusal, learn_stages
from featbench.learning.patches import MapSource, PatchSource
from featbench.plugins.ipsd import FLOOR, GroupPooling, Ipsd, infer_groups
from featbench.registry import Registry
from featbench.sparse.steps import compute_largest_eigenvalue
from featbench.stages.architecture import Architecture
from featbench.stages.filters import Bank

CPU = torch.device("cpu")
SMALL = {"pool": 3, "patches": 400, "updates": 15, "batch": 64}


def sample(*shape, seed=0, dtype=torch.float64):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).to(dtype)


def source(images, size, seed=0):
    return PatchSource(MapSource(images, nn.Identity(), CPU), size, seed)


def learn(seed=0, bank=None, images=None, **parameters):
    bank = bank or Bank(4, 5, 1)
    images = sample(30, bank.fan_in, 10, 10, dtype=torch.float32) if images is None else images
    return fill_bank(Ipsd(**{**SMALL, **parameters}), bank, source(images, bank.size), seed)


# The map and its pools.


@pytest.mark.parametrize(
    ("pools", "stride", "expected"),
    [(16, 2, (8, 8)), (8, 2, (4, 8)), (128, 2, (16, 32)), (64, 1, (8, 8)), (7, 2, (2, 14)), (12, 3, (9, 12))],
)
def test_the_map_is_as_near_to_a_square_as_the_number_of_pools_allows(pools, stride, expected):
    learner, bank = Ipsd(pool=stride, stride=stride), Bank(pools, 5, 1)
    assert learner.grid(bank) == expected
    assert learner.units(bank) == math.prod(expected) == pools * stride**2


def written_pools(rows, columns, pool, stride):
    """Weights [pools, units] by loops: a Gaussian in the square, of sum 1, borders that touch."""
    weights = []
    for top in range(0, rows, stride):
        for left in range(0, columns, stride):
            square = np.zeros((rows, columns))
            for i in range(pool):
                for j in range(pool):
                    away = (i - (pool - 1) / 2) ** 2 + (j - (pool - 1) / 2) ** 2
                    square[(top + i) % rows, (left + j) % columns] = math.exp(-0.5 * away / (pool / 4) ** 2)
            weights.append((square / square.sum()).flatten())
    return np.array(weights)


@pytest.mark.parametrize(
    ("pools", "pool", "stride"), [(16, 4, 2), (16, 6, 2), (9, 3, 1), (8, 4, 2), (4, 2, 2), (6, 5, 3)]
)
def test_pools_are_gaussians_of_sum_one_on_a_map_whose_borders_touch(pools, pool, stride):
    learner, bank = Ipsd(pool=pool, stride=stride), Bank(pools, 5, 1)
    assert learner.refusal(bank) is None
    weights = learner.make_pools(bank).numpy()
    np.testing.assert_allclose(weights, written_pools(*learner.grid(bank), pool, stride), atol=1e-6)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    assert ((weights > 0).sum(axis=1) == pool**2).all()
    # Every unit has a pool, and by symmetry all units of one place within a stride weigh the same.
    assert weights.sum(axis=0).min() > 0
    shifted = np.roll(weights.reshape(-1, *learner.grid(bank)), stride, axis=2)
    assert any(np.allclose(shifted[0].flatten(), row) for row in weights)


@pytest.mark.parametrize(("filters", "pool", "grid"), [(4, 6, "4×4"), (7, 3, "2×14"), (16, 9, "8×8")])
def test_a_map_smaller_than_a_pool_is_refused(filters, pool, grid):
    learner = Ipsd(pool=pool)
    message = f"{filters} pools make a map of {grid} units, smaller than a pool of {pool}"
    assert learner.refusal(Bank(filters, 5, 1)) == message
    with pytest.raises(UsageError, match=f"ipsd in stage 1: {message}"):
        featbench.Extractor(f"{filters}F3", learner).fit(np.random.default_rng(0).random((5, 8, 8)))


def test_a_bare_filter_bank_is_refused():
    shape = (1, 12, 12)
    assert find_refusal(Architecture.parse("16F5-PA2"), Ipsd(pool=4), shape) is None
    reason = find_refusal(Architecture.parse("16C5-Rabs"), Ipsd(pool=4), shape)
    assert "ipsd in stage 1: its encoder pools over filters, so that a bare filter bank (C)" in reason
    assert "ipsd in stage 2" in find_refusal(Architecture.parse("16F3 > 16C3"), Ipsd(pool=4), shape)
    assert find_refusal(Architecture.parse("16C5-Rabs"), Ipsd(pool=4, stride=1), shape) is None


# Codes.


def problem(units=16, pools=4, seed=0, n=5, dtype=torch.float64):
    """Gram matrix, correlations, largest eigenvalue, start and the weights of pools."""
    atoms = sample(12, units, seed=seed)
    atoms /= atoms.norm(dim=0)
    gram = atoms.T @ atoms + torch.eye(units, dtype=torch.float64)
    correlations, start = sample(n, 12, seed=seed + 1) @ atoms, sample(n, units, seed=seed + 2)
    weights = Ipsd(pool=3).make_pools(Bank(pools, 5, 1))
    return (
        [part.to(dtype) for part in (gram, correlations + start)],
        compute_largest_eigenvalue(gram),
        start,
        weights.to(dtype),
    )


def smoothed_energy(z, gram, correlations, weights, lam):
    """½ zᵀGz - cᵀz + λ Σ_i sqrt(Σ_j w_ij z_j² + floor) of one z, pool by pool."""
    total = 0.5 * z @ gram @ z - correlations @ z
    for pool in weights:
        total += lam * math.sqrt(sum(w * v * v for w, v in zip(pool, z, strict=True)) + FLOOR)
    return total


@pytest.mark.parametrize("lam", [0.1, 1.0, 5.0])
def test_inference_never_raises_the_energy(lam):
    (gram, correlations), lipschitz, start, weights = problem()
    energies, codes = [], start
    for _ in range(30):
        arrays = [t.numpy() for t in (gram, weights)]
        energies.append(
            [
                smoothed_energy(z, arrays[0], c, arrays[1], lam)
                for z, c in zip(codes.numpy(), correlations.numpy(), strict=True)
            ]
        )
        codes = infer_groups(gram, correlations, lipschitz, codes, weights, lam, 1)
    differences = np.diff(energies, axis=0)
    assert differences.max() <= 1e-10
    assert differences[0].max() < -1e-3


@pytest.mark.parametrize("lam", [0.1, 1.0])
def test_inference_reaches_the_minimum_that_scipy_finds(lam):
    (gram, correlations), lipschitz, start, weights = problem()
    codes = infer_groups(gram, correlations, lipschitz, start, weights, lam, 20_000).numpy()
    g, w = gram.numpy(), weights.numpy()

    def value_and_slope(z, c):
        v = np.sqrt(w @ z**2 + FLOOR)
        return 0.5 * z @ g @ z - c @ z + lam * v.sum(), g @ z - c + lam * z * (w.T @ (1 / v))

    for z, c, begin in zip(codes, correlations.numpy(), start.numpy(), strict=True):
        best = minimize(
            value_and_slope, begin, (c,), "L-BFGS-B", jac=True, options={"maxiter": 20_000, "ftol": 1e-15, "gtol": 1e-9}
        )
        assert smoothed_energy(z, g, c, w, lam) == pytest.approx(best.fun, abs=1e-6)


def test_steps_of_inference_are_those_of_the_written_loops():
    (gram, correlations), lipschitz, start, weights = problem(n=2)
    found = infer_groups(gram, correlations, lipschitz, start, weights, 0.7, 1).numpy()
    g, w = gram.numpy(), weights.numpy()
    for row, (z, c) in enumerate(zip(start.numpy(), correlations.numpy(), strict=True)):
        v = [math.sqrt(sum(w[i, j] * z[j] ** 2 for j in range(16)) + FLOOR) for i in range(4)]
        for j in range(16):
            a = sum(w[i, j] / v[i] for i in range(4))
            moved = z[j] - (sum(z[k] * g[k, j] for k in range(16)) - c[j]) / lipschitz
            assert found[row, j] == pytest.approx(moved / (1 + 0.7 * a / lipschitz), rel=1e-10)


def test_a_heavy_penalty_puts_whole_pools_to_rest():
    (gram, correlations), lipschitz, start, weights = problem()
    assert float(infer_groups(gram, correlations, lipschitz, start, weights, 100.0, 500).abs().max()) < 1e-3


# The encoder.


@pytest.mark.parametrize("table", [np.array([[0, 1]]), np.array([[2, 0], [1, 3]])])
def test_encoder_is_the_root_of_weighted_squares_of_f_by_loops(table):
    learner, bank = Ipsd(**SMALL), Bank(4, 3, 2)
    images = sample(20, 4, 8, 8, dtype=torch.float32)
    groups = [learn(seed, bank, images[:, seen], **SMALL) for seed, seen in enumerate(table)]
    filters = featbench.Filters.concatenate(groups)
    x = sample(2, 4, 5, 6, seed=1, dtype=torch.float32)
    found = learner.encoder(filters, table)(x).detach().double().numpy()
    assert found.shape == (2, 4 * len(table), 3, 4)
    weights = written_pools(4, 4, 3, 2)
    for group, seen in enumerate(table):
        own, f = groups[group], np.empty((2, 16, 3, 4))
        for k in range(16):
            for r in range(3):
                for c in range(4):
                    window = x[:, seen, r : r + 3, c : c + 3].double()
                    inner = (window * own.weight[k].double()).sum(dim=(1, 2, 3)) + own.bias[k].double()
                    f[:, k, r, c] = (own.gain[k].double() * torch.tanh(inner)).numpy()
        for i in range(4):
            v = np.sqrt(sum(weights[i, j] * f[:, j] ** 2 for j in range(16)) + 1e-6)
            np.testing.assert_allclose(found[:, 4 * group + i], v, atol=1e-5)


def test_pools_have_a_gradient_where_nothing_is_active():
    pooling = GroupPooling(Ipsd(pool=3).make_pools(Bank(4, 3, 1)), 2)
    x = torch.zeros(2, 32, 3, 3, requires_grad=True)
    y = pooling(x)
    y.sum().backward()
    torch.testing.assert_close(y, torch.full((2, 8, 3, 3), 1e-3))
    assert torch.isfinite(x.grad).all()
    assert not list(pooling.parameters())
    assert torch.autograd.gradcheck(pooling.double(), (sample(1, 32, 2, 2).requires_grad_(),))


# Learning.


def gratings(count=1000, size=8, seed=0):
    """Two gratings of one direction and frequency in each image, at random phases."""
    generator = np.random.default_rng(seed)
    row, column = np.mgrid[:size, :size]
    angle, frequency = generator.uniform(0, np.pi, count), generator.uniform(0.12, 0.3, count)
    images = np.zeros((count, size, size))
    for _ in range(2):
        along = np.multiply.outer(np.cos(angle), column) + np.multiply.outer(np.sin(angle), row)
        phase, height = generator.uniform(0, 2 * np.pi, count), generator.standard_normal(count)
        images += height[:, None, None] * np.cos(2 * np.pi * frequency[:, None, None] * along + phase[:, None, None])
    return torch.from_numpy(images[:, None]).float()


def likeness_of_neighbours(filters, side):
    """How much more alike the amplitude spectra of neighbours on the map are than others, in standard deviations."""
    spectra = np.abs(np.fft.fft2(filters.extras["decoder"][:, 0].numpy(), s=(16, 16))).reshape(side**2, -1)
    alike, near, far = np.corrcoef(spectra), [], []
    for one in range(side**2):
        for other in range(one):
            apart = [abs(a - b) for a, b in zip(divmod(one, side), divmod(other, side), strict=True)]
            (near if max(min(a, side - a) for a in apart) == 1 else far).append(alike[one, other])
    return (np.mean(near) - np.mean(far)) / np.std(far)


@pytest.mark.parametrize("seed", [0, 1])
def test_neighbours_on_the_map_are_more_alike_than_others(seed):
    bank, parameters = Bank(16, 8, 1), {"lam": 2.0, "pool": 4, "patches": 2000}
    start, found = (learn(seed, bank, gratings(), updates=updates, **parameters) for updates in (1, 300))
    assert likeness_of_neighbours(start, 8) < 0.3
    assert likeness_of_neighbours(found, 8) > 0.5


def test_energy_falls_as_it_learns():
    images, bank = gratings(300), Bank(4, 6, 1)
    learner = Ipsd(**{**SMALL, "iterations": 200})
    patches = source(gratings(300, seed=1), 6).sample(100).flatten(1).double()
    raw = source(images, 6).sample(400).flatten(1).double()
    scale = float((raw - raw.mean(dim=1, keepdim=True)).square().mean().sqrt())
    y, pools, values = (patches - patches.mean(dim=1, keepdim=True)) / scale, learner.make_pools(bank).double(), []
    for updates in (1, 20, 200):
        filters = learn(bank=bank, images=images, updates=updates)
        weight, atoms = filters.weight.flatten(1).double(), filters.extras["decoder"].flatten(1).double()
        prediction = filters.gain.double() * torch.tanh(patches @ weight.T + filters.bias.double())
        gram = atoms @ atoms.T + torch.eye(16, dtype=torch.float64)
        codes = infer_groups(
            gram, y @ atoms.T + prediction, compute_largest_eigenvalue(gram), prediction, pools, 1.0, 200
        )
        parts = 0.5 * (y - codes @ atoms).square(), (codes.square() @ pools.T).sqrt(), 0.5 * (codes - prediction) ** 2
        values.append(sum(float(part.sum()) for part in parts) / len(y))
    assert values[1] < 0.97 * values[0]
    assert values[2] < 0.97 * values[1]


@pytest.mark.parametrize("bank", [Bank(4, 5, 1), Bank(9, 3, 2), Bank(8, 1, 3)])
def test_there_are_stride_squared_filters_for_each_pool(bank):
    filters = learn(bank=bank, images=sample(30, bank.fan_in, 9, 9, dtype=torch.float32))
    assert filters.weight.shape == filters.extras["decoder"].shape == (4 * bank.filters, *bank.shape[1:])
    np.testing.assert_allclose(filters.extras["decoder"].flatten(1).norm(dim=1), np.ones(4 * bank.filters), atol=1e-5)


def test_filters_see_no_offset():
    assert float(learn().weight.mean(dim=(1, 2, 3)).abs().max()) < 1e-6
    assert float(learn(centre=False).weight.mean(dim=(1, 2, 3)).abs().max()) > 1e-3


def test_seed_decides_the_filters_and_global_random_state_plays_no_part():
    torch.manual_seed(1)
    one = learn(seed=1)
    torch.manual_seed(2)
    same, other = learn(seed=1), learn(seed=2)
    for name, tensor in one.tensors().items():
        assert torch.equal(tensor, same.tensors()[name])
        assert not torch.equal(tensor, other.tensors()[name])


def test_features_are_as_many_as_the_architecture_says():
    pixels = sample(30, 12, 12).numpy()
    parameters = {**SMALL, "pool": 4}
    extractor = featbench.Extractor("16F5-PA2/2", "ipsd", learner_params=parameters)
    features = extractor.fit(pixels).transform(pixels)
    assert features.shape == (30, 16 * 4 * 4)
    assert np.isfinite(features).all()
    assert features.min() >= 0


@pytest.mark.parametrize("refined", [False, True])
def test_second_stage_with_a_connection_table_fixed_and_refined(refined):
    pixels, labels = sample(40, 16, 16).numpy(), np.arange(40) % 2
    extractor = featbench.Extractor("4F5-N3-PA2/2 > 32F3:2-PA2", "ipsd", learner_params=SMALL, refined=refined)
    features = extractor.fit(pixels, labels).transform(pixels)
    assert features.shape == (40, 32 * 2 * 2)
    assert np.isfinite(features).all()
    assert features.std() > 1e-3


def test_gradients_through_two_stages_are_finite():
    architecture, learner = Architecture.parse("4F5-N3-PA2/2 > 32F3:2-PA2"), Ipsd(**SMALL)
    images = sample(30, 1, 16, 16, dtype=torch.float32)
    stages = learn_stages(architecture, learner, (1, 16, 16), images, seed=0, device=CPU)
    assert tuple(stages[1].filters.weight.shape) == (4 * 32, 2, 3, 3)
    network = assemble(architecture, learner, (1, 16, 16), stages)
    for x in (images, torch.zeros(2, 1, 16, 16)):
        network.zero_grad()
        network(x).square().sum().backward()
        for parameter in network.parameters():
            assert torch.isfinite(parameter.grad).all()
    # An image alone gives what it gives in a batch.
    np.testing.assert_allclose(extract(network, images[3:4], CPU), extract(network, images, CPU)[3:4], atol=1e-5)


# What is refused.


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"lam": 0.0}, "lam > 0, alpha ≥ 0 and rate > 0 are needed"),
        ({"alpha": -1.0}, "lam > 0, alpha ≥ 0 and rate > 0 are needed"),
        ({"rate": 0.0}, "lam > 0, alpha ≥ 0 and rate > 0 are needed"),
        ({"pool": 1}, "pools must overlap or touch: pool is at least stride"),
        ({"pool": 2, "stride": 3}, "pools must overlap or touch"),
        *(({name: 0}, "must be at least 1") for name in ("patches", "updates", "batch", "iterations", "stride")),
    ],
)
def test_parameters_without_sense_are_refused(parameters, message):
    with pytest.raises(UsageError, match=message):
        Ipsd.create(parameters)


def test_bad_patches_are_refused():
    with pytest.raises(LearningError, match="ipsd learns from patches and was given none"):
        Ipsd().filters(Bank(16, 5, 1), None, 0)
    with pytest.raises(LearningError, match="constant"):
        learn(images=torch.full((10, 1, 9, 9), 0.3))
    with pytest.raises(LearningError, match="ipsd cannot learn 16 filters from 15 patches"):
        learn(patches=15)
    images = sample(10, 1, 9, 9, dtype=torch.float32)
    images[:, 0, 4, 4] = float("nan")
    with pytest.raises(LearningError, match="not finite"):
        learn(images=images)


def test_it_is_registered_as_an_unsupervised_learner():
    assert Registry().learner("ipsd") is Ipsd
    assert Ipsd.family == "unsupervised"
