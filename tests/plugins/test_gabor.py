import math
import re

import numpy as np
import pytest
import torch

from featbench.filters import Bank
from featbench.learner import fill_bank
from featbench.plugins.gabor import Gabor
from featbench.registry import Registry

BANK = Bank(filters=64, size=9, fan_in=1)


def kernels(bank=BANK, orientations=8, **parameters):
    """The bank as [wavelengths, orientations, phases, size, size]."""
    weight = Gabor(**parameters).filters(bank, None, 0).weight
    return weight[:, 0].unflatten(0, (-1, orientations, 2))


def written_gabor(size, wavelength, angle, phase, sigma):
    middle = (size - 1) / 2
    kernel = np.zeros((size, size))
    for row in range(size):
        for column in range(size):
            y, x = row - middle, column - middle
            envelope = math.exp(-(x * x + y * y) / (2 * sigma * sigma))
            along = x * math.cos(angle) + y * math.sin(angle)
            kernel[row, column] = envelope * math.cos(2 * math.pi * along / wavelength + phase)
    kernel -= kernel.mean()
    return kernel / math.sqrt((kernel**2).sum())


# Wavelengths go from 3 pixels to the side in steps of one ratio; a small side has one, and more orientations.
@pytest.mark.parametrize(
    ("filters", "size", "wavelengths", "orientations"),
    [
        (64, 9, (3, 3 * 3 ** (1 / 3), 3 * 3 ** (2 / 3), 9), 8),
        (32, 6, (3, 6), 8),
        (16, 5, (3,), 8),
        (32, 5, (3,), 16),
        (32, 3, (3,), 16),
    ],
)
def test_bank_equals_the_written_loops(filters, size, wavelengths, orientations):
    for wavelength, rows in zip(wavelengths, kernels(Bank(filters, size, 1), orientations), strict=True):
        for o, phases in enumerate(rows):
            for p, kernel in enumerate(phases):
                expected = written_gabor(size, wavelength, math.pi * o / orientations, p * math.pi / 2, size / 4)
                np.testing.assert_allclose(kernel, expected, atol=1e-6)


def test_filters_have_zero_mean_and_unit_norm():
    weight = Gabor().filters(BANK, None, 0).weight
    assert weight.shape == BANK.shape
    assert float(weight.mean(dim=(1, 2, 3)).abs().max()) < 1e-7
    torch.testing.assert_close(weight.flatten(1).norm(dim=1), torch.ones(64))


@pytest.mark.parametrize("size", [6, 8, 9])
def test_phases_are_even_and_odd(size):
    bank = kernels(Bank(32, size, 1))
    turned = bank.flip(-2, -1)
    torch.testing.assert_close(turned[:, :, 0], bank[:, :, 0], atol=1e-6, rtol=0)
    torch.testing.assert_close(turned[:, :, 1], -bank[:, :, 1], atol=1e-6, rtol=0)


def test_a_quarter_turn_is_four_of_eight_orientations():
    bank = kernels()
    torch.testing.assert_close(bank[:, 4], bank[:, 0].transpose(-2, -1), atol=1e-6, rtol=0)


def test_orientation_and_wavelength_are_where_the_spectrum_peaks():
    # Envelopes of several waves, so that the peak is sharp.
    (orientations,) = kernels(Bank(16, 33, 1), shortest=6.0, envelope=0.3)
    for o, (even, odd) in enumerate(orientations):
        spectrum = torch.fft.fft2(even, s=(256, 256)).abs() + torch.fft.fft2(odd, s=(256, 256)).abs()
        row, column = np.unravel_index(int(spectrum[:, :129].argmax()), (256, 129))
        vertical, horizontal = (row if row < 128 else row - 256) / 256, column / 256
        assert math.hypot(vertical, horizontal) == pytest.approx(1 / 6, rel=0.05)
        turn = (math.atan2(vertical, horizontal) - math.pi * o / 8) % math.pi
        assert min(turn, math.pi - turn) < 0.05


@pytest.mark.parametrize(("filters", "size"), [(16, 9), (64, 9), (32, 6), (32, 5), (32, 3)])
def test_no_filter_comes_twice(filters, size):
    weight = Gabor().filters(Bank(filters, size, 1), None, 0).weight.flatten(1)
    likeness = weight @ weight.T - torch.eye(filters)
    assert float(likeness.max()) < 0.9999


@pytest.mark.parametrize("filters", [1, 7, 16, 17, 100])
def test_any_number_of_filters_is_the_beginning_of_a_larger_bank(filters):
    bank = Bank(filters, 9, 1)
    given = fill_bank(Gabor(), bank, None, 0)
    assert given.problem(bank) is None
    if filters <= 16:
        assert torch.equal(given.weight, Gabor().filters(Bank(16, 9, 1), None, 0).weight[:filters])


def test_seed_plays_no_part():
    assert torch.equal(Gabor().filters(BANK, None, 1).weight, Gabor().filters(BANK, None, 2).weight)


@pytest.mark.parametrize("shortest", [2.001, 2.1, 3.0, 20.0])
def test_every_filter_is_a_wave_and_not_what_rounding_leaves_of_one(shortest):
    weight = Gabor(shortest=shortest).filters(Bank(32, 9, 1), None, 0).weight[:, 0].double()
    signs = torch.tensor([1.0, -1.0]).repeat(16).view(-1, 1, 1)
    torch.testing.assert_close(weight.flip(-2, -1), signs * weight, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("bank", "reason"),
    [(Bank(16, 9, 2), "designed for one map, and 2 come in"), (Bank(16, 2, 1), "2×2 are too small .* at least 3×3")],
)
def test_banks_it_cannot_fill_are_refused_with_the_reason(bank, reason):
    refusal = Gabor().refusal(bank)
    assert refusal is not None
    assert re.search(reason, refusal)


def test_smallest_bank_it_can_fill_is_not_refused():
    assert Gabor().refusal(Bank(1, 3, 1)) is None


@pytest.mark.parametrize("parameters", [{"orientations": 0}, {"shortest": 2.0}, {"envelope": 0.0}, {"envelope": -1.0}])
def test_bad_parameters_are_refused(parameters):
    with pytest.raises(ValueError, match=r"orientations ≥ 1, shortest .* envelope > 0 are needed"):
        Gabor(**parameters)


def test_it_is_registered_as_a_fixed_learner_shown_as_g():
    assert Registry().learner("gabor") is Gabor
    assert (Gabor.family, Gabor.initial) == ("fixed", "G")
