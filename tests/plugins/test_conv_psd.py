import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso
from torch import nn

import featbench
from featbench.errors import LearningError, UsageError
from featbench.features.extraction import extract
from featbench.learning.banks import fill_bank
from featbench.learning.networks import assemble, learn_stages
from featbench.learning.patches import MapSource, PatchSource
from featbench.plugins.conv_psd import ConvPsd, WindowDecoder
from featbench.registry import Registry
from featbench.stages.architecture import Architecture
from featbench.stages.encoders import build_encoder
from featbench.stages.filters import Bank

CPU = torch.device("cpu")
QUICK = {"lam": 0.3, "positions": 5, "windows": 100, "updates": 10, "batch": 8}
ENCODERS = ["tanh", "shrink", "smooth-shrink"]


def sample(*shape, seed=0, dtype=torch.float64):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).to(dtype)


def decoder_of(filters=3, maps=2, size=3, positions=4, lam=0.3, alpha=1.0, iterations=3000, dtype=torch.float64):
    return WindowDecoder(sample(filters, maps, size, size, dtype=dtype), lam, alpha, iterations, positions)


def cover(positions, size):
    """How many positions of a code reach each pixel of a window, the most being 1."""
    side = positions + size - 1
    count = np.zeros((side, side))
    for r in range(positions):
        for c in range(positions):
            count[r : r + size, c : c + size] += 1
    return count / count.max()


def reconstruction(kernels, z):
    """Σ_k D_k ∗ z_k for kernels [filters, maps, size, size] and codes [filters, positions, positions], by loops."""
    filters, maps, size, _ = kernels.shape
    positions = z.shape[1]
    out = kernels.new_zeros(maps, positions + size - 1, positions + size - 1)
    for k in range(filters):
        for r in range(positions):
            for c in range(positions):
                placed = torch.zeros_like(out)
                placed[:, r : r + size, c : c + size] = kernels[k]
                out = out + z[k, r, c] * placed
    return out


def energy(x, kernels, codes, prediction, mask, lam, alpha):
    """Mean of ½‖x - Σ_k D_k ∗ z_k‖²_M + λ‖z‖₁ + α/2 ‖z - F‖², one window after another."""
    total = 0.0
    for window, z, f in zip(x, codes, prediction, strict=True):
        residual = window - reconstruction(kernels, z)
        total += 0.5 * (mask * residual**2).sum() + lam * z.abs().sum() + 0.5 * alpha * ((z - f) ** 2).sum()
    return total / len(x)


def matrix_of(kernels, positions):
    """The reconstruction as a matrix [maps × side², filters × positions²]."""
    filters = len(kernels)
    columns = []
    for index in range(filters * positions**2):
        z = torch.zeros(filters * positions**2, dtype=kernels.dtype)
        z[index] = 1
        columns.append(reconstruction(kernels, z.view(filters, positions, positions)).flatten())
    return torch.stack(columns, dim=1).numpy()


SHAPES = [(3, 2, 3, 4), (5, 1, 2, 3), (2, 3, 4, 2), (2, 1, 3, 1), (4, 2, 1, 3)]


@pytest.mark.parametrize(("filters", "maps", "size", "positions"), SHAPES)
def test_mask_counts_the_positions_that_reach_a_pixel(filters, maps, size, positions):
    mask = decoder_of(filters, maps, size, positions).mask
    np.testing.assert_allclose(mask.expand(1, 1, -1, -1)[0, 0], cover(positions, size), atol=1e-12)


@pytest.mark.parametrize(("filters", "maps", "size", "positions"), SHAPES)
def test_gradient_of_the_kernels_is_that_of_the_written_energy(filters, maps, size, positions):
    decoder, side = decoder_of(filters, maps, size, positions), positions + size - 1
    x, codes = sample(3, maps, side, side, seed=1), sample(3, filters, positions, positions, seed=2)
    kernels = decoder.atoms.clone().requires_grad_()
    mask = torch.from_numpy(cover(positions, size))
    energy(x, kernels, codes, torch.zeros_like(codes), mask, 0.3, 1.0).backward()
    np.testing.assert_allclose(decoder.gradient(x, codes), kernels.grad, atol=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize(("filters", "maps", "size", "positions"), SHAPES)
def test_codes_are_those_of_scikit_learns_lasso_on_the_convolution_as_a_matrix(filters, maps, size, positions, alpha):
    decoder, side = decoder_of(filters, maps, size, positions, alpha=alpha), positions + size - 1
    x, prediction = sample(2, maps, side, side, seed=1), sample(2, filters, positions, positions, seed=2)
    root = np.tile(np.sqrt(cover(positions, size)).flatten(), maps)
    matrix = root[:, None] * matrix_of(decoder.atoms, positions)
    augmented = np.vstack([matrix, np.sqrt(alpha) * np.eye(matrix.shape[1])])
    for window, f, z in zip(x, prediction, decoder.infer(x, prediction), strict=True):
        target = np.concatenate([root * window.flatten().numpy(), np.sqrt(alpha) * f.flatten().numpy()])
        solver = Lasso(0.3 / len(target), fit_intercept=False, tol=1e-12, max_iter=100_000)
        np.testing.assert_allclose(z.flatten(), solver.fit(augmented, target).coef_, atol=1e-5)


def test_few_iterations_lower_the_energy_of_the_prediction():
    x, prediction = sample(4, 2, 6, 6, seed=1), sample(4, 3, 4, 4, seed=2)
    values = []
    for iterations in (0, 1, 5, 15, 1000):
        decoder = decoder_of(iterations=iterations)
        codes = decoder.infer(x, prediction)
        values.append(float(energy(x, decoder.atoms, codes, prediction, torch.from_numpy(cover(4, 3)), 0.3, 1.0)))
    assert values == sorted(values, reverse=True)
    assert values[0] > 1.5 * values[4]
    assert values[3] < 1.001 * values[4]


def test_codes_in_single_precision():
    x, prediction = sample(4, 2, 6, 6, seed=1), sample(4, 3, 4, 4, seed=2)
    single = decoder_of(dtype=torch.float32, iterations=500).infer(x.float(), prediction.float())
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single, decoder_of().infer(x, prediction), atol=1e-4)


@pytest.mark.parametrize(("filters", "maps", "size", "positions"), [*SHAPES, (1, 1, 3, 5), (12, 2, 3, 6)])
def test_the_step_is_never_too_long(filters, maps, size, positions):
    decoder = decoder_of(filters, maps, size, positions)
    root = np.tile(np.sqrt(cover(positions, size)).flatten(), maps)
    plain = matrix_of(decoder.atoms, positions)
    bound = decoder._compute_lipschitz()
    assert bound >= np.linalg.norm(root[:, None] * plain, 2) ** 2 * (1 - 1e-9)
    assert bound >= np.linalg.norm(plain, 2) ** 2 * (1 - 1e-9)
    # A bound of no use would be that of all entries of the code being one atom.
    assert bound <= filters * size**2 + 1e-9


def test_codes_do_not_see_the_border_as_much_as_the_middle():
    decoder, x = decoder_of(alpha=0.0), torch.zeros(2, 2, 6, 6, dtype=torch.float64)
    x[0, :, 0, 0], x[1, :, 2, 2] = 5.0, 5.0
    border, middle = decoder.infer(x, torch.zeros(2, 3, 4, 4, dtype=torch.float64)).abs().sum(dim=(1, 2, 3)).tolist()
    assert border < 0.5 * middle


# Learning.


def source(images, size, seed=0):
    return PatchSource(MapSource(images, nn.Identity(), CPU), size, seed)


def learn(seed=0, bank=None, images=None, **parameters):
    bank = bank or Bank(4, 3, 1)
    images = sample(20, bank.fan_in, 12, 12, dtype=torch.float32) if images is None else images
    return fill_bank(ConvPsd(**{**QUICK, **parameters}), bank, source(images, bank.size), seed)


def planted(count, seed, kernels):
    """Images in which some kernels stand at random places."""
    generator = np.random.default_rng(seed)
    codes = generator.standard_normal((count, len(kernels), 16, 16)) * (generator.random((count, 4, 16, 16)) < 0.01)
    codes = torch.from_numpy(3 * codes).float()
    images = nn.functional.conv_transpose2d(codes, kernels)
    return images + 0.01 * torch.from_numpy(generator.standard_normal(images.shape)).float()


def kernels_of_zero_mean(size=5):
    kernels = sample(4, 1, size, size, seed=7, dtype=torch.float32)
    kernels -= kernels.mean(dim=(1, 2, 3), keepdim=True)
    return kernels / kernels.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def likeness(kernels, others):
    """The largest correlation of each kernel with any of the others at any shift, whatever the sign."""
    size = kernels.shape[-1]
    return nn.functional.conv2d(kernels, others, padding=size - 1).abs().amax(dim=(1, 2, 3))


@pytest.mark.parametrize("nonlinearity", ["tanh", "shrink"])
def test_kernels_that_made_the_images_are_found_up_to_shift_and_sign(nonlinearity):
    kernels = kernels_of_zero_mean()
    parameters = {"lam": 1.0, "alpha": 0.2, "positions": 7, "windows": 600, "updates": 150, "rate": 0.02}
    filters = learn(bank=Bank(8, 5, 1), images=planted(60, 0, kernels), nonlinearity=nonlinearity, **parameters)
    decoder = filters.extras["decoder"]
    chance = likeness(kernels, learn(bank=Bank(8, 5, 1), **{**QUICK, "updates": 1}).extras["decoder"]).mean()
    assert float(likeness(kernels, decoder).mean()) > 0.9
    assert float(chance) < 0.7


@pytest.mark.parametrize("nonlinearity", ENCODERS)
def test_energy_of_held_out_windows_falls_as_it_learns(nonlinearity):
    kernels, learner = kernels_of_zero_mean(3), ConvPsd(**{**QUICK, "windows": 300, "nonlinearity": nonlinearity})
    images = planted(40, 0, kernels)
    x = source(planted(40, 1, kernels), 3).sample(50, 7)
    scale = float(source(images, 3).sample(300, 7).square().mean().sqrt())
    values = []
    for updates in (1, 30, 200):
        filters = learn(images=images, windows=300, updates=updates, nonlinearity=nonlinearity)
        prediction = build_encoder(nonlinearity, filters, np.array([[0]]))(x).detach()
        decoder = WindowDecoder(filters.extras["decoder"], learner.lam, 1.0, 50, 5)
        codes = decoder.infer(x / scale, prediction)
        mask = torch.from_numpy(cover(5, 3)).float()
        residual = x / scale - nn.functional.conv_transpose2d(codes, filters.extras["decoder"])
        parts = (
            0.5 * (mask * residual.square()),
            learner.lam * codes.abs(),
            0.5 * (codes - prediction).square(),
        )
        values.append(sum(float(part.sum()) for part in parts) / len(x))
    assert values[1] < 0.95 * values[0]
    assert values[2] < 0.95 * values[1]


@pytest.mark.parametrize("nonlinearity", ENCODERS)
@pytest.mark.parametrize("bank", [Bank(4, 3, 1), Bank(6, 2, 3), Bank(3, 1, 2)])
def test_shapes_norms_and_what_comes_along(bank, nonlinearity):
    filters = learn(bank=bank, nonlinearity=nonlinearity)
    assert filters.weight.shape == filters.extras["decoder"].shape == bank.shape
    np.testing.assert_allclose(filters.extras["decoder"].flatten(1).norm(dim=1), np.ones(bank.filters), atol=1e-5)
    names = {"tanh": set(), "shrink": {"threshold"}, "smooth-shrink": {"threshold", "sharpness"}}[nonlinearity]
    assert set(filters.extras) == {"decoder"} | names


def test_contrast_of_the_images_is_taken_out():
    images = sample(20, 1, 12, 12, dtype=torch.float32)
    plain, changed = learn(images=images), learn(images=1000 * images)
    torch.testing.assert_close(1000 * changed.weight, plain.weight, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(changed.extras["decoder"], plain.extras["decoder"], atol=1e-3, rtol=1e-3)


def test_seed_decides_the_filters_and_global_random_state_plays_no_part():
    torch.manual_seed(1)
    one = learn(seed=1)
    torch.manual_seed(2)
    same, other = learn(seed=1), learn(seed=2)
    for name, tensor in one.tensors().items():
        assert torch.equal(tensor, same.tensors()[name])
        assert not torch.equal(tensor, other.tensors()[name])


@pytest.mark.parametrize("nonlinearity", ENCODERS)
def test_second_stage_with_a_connection_table(nonlinearity):
    architecture = Architecture.parse("4F3-Rabs-PA2/2 > 32F3:2-Rabs")
    learner, images = ConvPsd(**{**QUICK, "nonlinearity": nonlinearity}), sample(30, 1, 20, 20, dtype=torch.float32)
    stages = learn_stages(architecture, learner, (1, 20, 20), images, seed=0, device=CPU)
    assert [tuple(stage.filters.weight.shape) for stage in stages] == [(4, 1, 3, 3), (32, 2, 3, 3)]
    assert stages[1].table.shape == (2, 2)
    assert not torch.equal(stages[1].filters.weight[:16], stages[1].filters.weight[16:])
    features = extract(assemble(architecture, learner, (1, 20, 20), stages), images, CPU)
    assert features.shape == (30, 32 * 7 * 7)
    assert features.std() > 1e-3


def test_labels_refine_it():
    pixels, labels = sample(40, 12, 12).numpy(), np.arange(40) % 2
    for nonlinearity in ENCODERS:
        parameters = {**QUICK, "nonlinearity": nonlinearity}
        extractor = featbench.Extractor("4F3-Rabs-PA2", "conv-psd", learner_params=parameters, refined=True)
        assert np.isfinite(extractor.fit(pixels, labels).transform(pixels)).all()


# What is refused.


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_constant_images_are_refused(value):
    with pytest.raises(LearningError, match="constant"):
        learn(images=torch.full((10, 1, 12, 12), value))


def test_images_smaller_than_the_window_are_refused():
    with pytest.raises(LearningError, match="image 0 is too small to learn from: its maps are 6×6, patches are 7×7"):
        learn(images=sample(10, 1, 6, 6, dtype=torch.float32))
    assert learn(images=sample(10, 1, 7, 7, dtype=torch.float32)).weight.shape == (4, 1, 3, 3)


def test_images_that_are_not_finite_are_refused():
    images = sample(10, 1, 12, 12, dtype=torch.float32)
    images[:, 0, 5, 5] = float("nan")
    with pytest.raises(LearningError, match="not finite"):
        learn(images=images)


def test_no_images_are_refused():
    with pytest.raises(LearningError, match="conv-psd learns from windows of images and was given none"):
        ConvPsd().filters(Bank(4, 3, 1), None, 0)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"lam": 0.0}, "lam > 0, alpha ≥ 0 and rate > 0 are needed"),
        ({"alpha": -1.0}, "lam > 0, alpha ≥ 0 and rate > 0 are needed"),
        ({"rate": 0.0}, "lam > 0, alpha ≥ 0 and rate > 0 are needed"),
        ({"nonlinearity": "relu"}, "nonlinearity is one of tanh, shrink, smooth-shrink, not 'relu'"),
        *(({name: 0}, "must be at least 1") for name in ("positions", "windows", "updates", "batch", "iterations")),
    ],
)
def test_parameters_without_sense_are_refused(parameters, message):
    with pytest.raises(UsageError, match=message):
        ConvPsd.create(parameters)


def test_it_is_registered_as_an_unsupervised_learner():
    assert Registry().learner("conv-psd") is ConvPsd
    assert ConvPsd.family == "unsupervised"
