import math
import re

import numpy as np
import pytest
import torch

from featbench.comparison import Workbench
from featbench.data.maps import Preprocessing, make_maps
from featbench.experiment.request import Request
from featbench.learning.banks import fill_bank
from featbench.learning.networks import assemble, learn_stages
from featbench.learning.patches import MapSource, PatchSource
from featbench.plugins.gabor import Gabor, GaborTemplates
from featbench.registry import Registry
from featbench.stages.architecture import Architecture
from featbench.stages.filters import Bank

BANK = Bank(filters=64, size=9, fan_in=1)
CPU = torch.device("cpu")


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
    assert given.find_problem(bank) is None
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
    assert not Gabor.looks()


# Templates: GT.

STAGES = Architecture.parse("16F5-Rabs-N5-PA2/2 > 12F3:4-Rabs-PA2/2")


@pytest.fixture(scope="module")
def pictures():
    """Maps of noise images."""
    return make_maps(np.random.default_rng(0).integers(0, 256, (20, 24, 24), dtype=np.uint8), Preprocessing())


def learn(images, seed=0, stages=STAGES, **parameters):
    return learn_stages(stages, GaborTemplates(**parameters), images.shape, images, seed=seed, device=CPU)


def windows(maps, size):
    """Every window [n, maps, size, size] of the maps, each divided by its norm."""
    cut = maps.unfold(2, size, 1).unfold(3, size, 1).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    return cut / cut.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def test_first_stage_of_templates_is_made_of_gabors(pictures):
    first = learn(pictures, seed=3)[0].filters
    assert torch.equal(first.weight, Gabor().filters(Bank(16, 5, 1), None, 0).weight)


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_templates_are_patches_of_the_outputs_below_divided_by_their_norm(pictures, scale):
    learned = learn(pictures, template_scale=scale)
    below = assemble(STAGES, GaborTemplates(), pictures.shape, learned)[0]
    with torch.no_grad():
        maps = below(pictures[:])
    weight, table = learned[1].filters.weight, learned[1].table
    assert weight.shape == (12, 4, 3, 3)
    torch.testing.assert_close(weight.flatten(1).norm(dim=1), torch.full((12,), scale))
    groups = weight.unflatten(0, (len(table), -1))
    for columns, group in zip(table, groups, strict=True):
        there = windows(maps[:, torch.from_numpy(columns)], 3).flatten(1)
        likeness = (group.flatten(1) / scale) @ there.T
        assert float(likeness.max(dim=1).values.min()) > 1 - 1e-5
    assert float((weight.flatten(1) @ weight.flatten(1).T / scale**2 - torch.eye(12)).max()) < 1 - 1e-4
    assert torch.equal(learned[1].filters.gain, torch.ones(12))
    assert torch.equal(learned[1].filters.bias, torch.zeros(12))


def test_templates_come_from_many_images(pictures):
    stages = Architecture.parse("8F5-Rabs > 40F3")
    learned = learn(pictures, stages=stages)
    with torch.no_grad():
        maps = assemble(stages, GaborTemplates(), pictures.shape, learned)[0](pictures[:])
    weight = learned[1].filters.weight.flatten(1)
    owners = torch.stack([(windows(maps[i : i + 1], 3).flatten(1) @ weight.T).amax(dim=0) for i in range(20)])
    assert len(owners.argmax(dim=0).unique()) > 10


def test_seed_and_images_decide_the_templates(pictures):
    first, again = (learn(pictures, seed=5)[1].filters.weight for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, learn(pictures, seed=6)[1].filters.weight)
    assert not torch.equal(first, learn(pictures.select(np.arange(10)), seed=5)[1].filters.weight)


def test_seed_chooses_among_the_same_patches():
    images = torch.from_numpy(np.random.default_rng(0).standard_normal((20, 4, 12, 12))).float()
    patches, bank = PatchSource(MapSource(images, torch.nn.Identity(), CPU), 3, seed=0), Bank(8, 3, 4)
    first, again, other = (GaborTemplates().filters(bank, patches, seed).weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_groups_have_templates_of_their_own(pictures):
    learned = learn(pictures, stages=Architecture.parse("4F5-Rabs > 32F3:2"))[1]
    groups = learned.filters.weight.unflatten(0, (len(learned.table), -1))
    assert len(groups) > 1
    assert not torch.equal(groups[0], groups[1])


@pytest.mark.parametrize(
    ("bank", "reason"),
    [(Bank(16, 2, 1), "too small for a Gabor"), (Bank(16, 9, 1), None), (Bank(16, 2, 2), None), (Bank(9, 9, 64), None)],
)
def test_a_single_map_needs_room_for_a_gabor_and_several_take_any_template(bank, reason):
    refusal = GaborTemplates().refusal(bank)
    assert refusal is None if reason is None else reason in refusal


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_template_scale_must_be_positive(scale):
    with pytest.raises(ValueError, match=f"template_scale must be positive, not {scale}"):
        GaborTemplates(template_scale=scale)


def test_gabor_parameters_hold_for_templates_as_well():
    assert GaborTemplates(orientations=4).filters(BANK, None, 0).weight.shape == BANK.shape
    assert torch.equal(
        GaborTemplates(shortest=4.0).filters(BANK, None, 0).weight, Gabor(shortest=4.0).filters(BANK, None, 0).weight
    )
    with pytest.raises(ValueError, match="orientations ≥ 1"):
        GaborTemplates(orientations=0)


def test_templates_are_registered_as_a_fixed_learner_that_looks_at_images():
    assert Registry().learner("gabor-templates") is GaborTemplates
    assert (GaborTemplates.family, GaborTemplates.initial) == ("fixed", "GT")
    assert GaborTemplates.looks()


def test_templates_belong_to_their_draw_and_gabors_serve_all_of_them(tiny, compare_tiny, store):
    request = Request("tiny", features=["gabor", "gabor-templates"], regimes=["fixed"], device="cpu", draws=2)
    bench = Workbench(plugins=[tiny])
    cells = [cell for cell in bench.plan(request) if cell.learner.name.startswith("gabor")]
    keys = {str(cell): bench.keys.for_cell(cell).network.hash for cell in cells}
    assert keys["gabor fixed nearest draw 0"] == keys["gabor fixed nearest draw 1"]
    assert keys["gabor-templates fixed nearest draw 0"] != keys["gabor-templates fixed nearest draw 1"]

    options = ("--features", "gabor-templates", "--regimes", "fixed", "--stages", "4F3-Rabs > 6F2-Rabs")
    ran = compare_tiny(*options)
    assert ran.code == 0
    assert (ran.row("gabor-templates")["label"], ran.row("gabor-templates")["n"]) == ("GT", 2)
    filters = [
        store.read_tensors("filters", path.stem)[0] for path in (store.home / "artifacts/filters").glob("*.safe*")
    ]
    assert len(filters) == 2
    assert np.array_equal(filters[0]["filters/1/weight"], filters[1]["filters/1/weight"])
    assert not np.array_equal(filters[0]["filters/2/weight"], filters[1]["filters/2/weight"])


def test_templates_can_be_taken_from_unlabelled_images(compare_tiny, unlabelled):
    options = ("--features", "gabor-templates,gabor", "--regimes", "fixed", "--stages", "4F3-Rabs > 6F2-Rabs")
    ran = compare_tiny(*options, "--draws", "1", "--unlabelled", unlabelled)
    assert ran.code == 0
    assert ran.row("gabor-templates")["unlabelled"] == str(unlabelled)
    assert ran.row("gabor")["status"] == "skipped"
    assert "see gabor-templates" in ran.row("gabor")["message"]
