import copy
import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from featbench.comparison import Workbench
from featbench.errors import UnknownNameError, UsageError
from featbench.studies import codes, costs, regressor
from featbench.studies.codes import CodesSettings, compute_signal_to_noise, scale_to_unit_deviation

SMALL = {
    "filters": 6,
    "size": 4,
    "patches": 80,
    "timed": 10,
    "lams": (0.2, 0.6),
    "updates": 5,
    "learner": "psd(updates=3,patches=60)",
}


@pytest.fixture
def settings(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (30, 25), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "one.png")
    return lambda **changes: CodesSettings(**{**SMALL, "unlabelled": str(folder), **changes})


def test_decibels_are_ten_times_the_logarithm_of_the_ratio():
    signal = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(500, 3, generator=torch.Generator().manual_seed(1))
    noise = (noise - noise.mean(dim=0)) * (signal.var(dim=0).sum() / noise.var(dim=0).sum() / 100).sqrt()
    assert compute_signal_to_noise(signal, signal + noise) == pytest.approx(20, abs=1e-4)
    # A constant offset is no noise, and half the signal leaves half of it as noise.
    assert compute_signal_to_noise(signal, 0.5 * signal + 7) == pytest.approx(10 * math.log10(4), abs=1e-4)


def test_codes_without_noise_or_without_signal_are_refused():
    signal = torch.randn(5, 3)
    with pytest.raises(UsageError, match="the same"):
        compute_signal_to_noise(signal, signal)
    with pytest.raises(UsageError, match="all codes are zero"):
        compute_signal_to_noise(torch.zeros(5, 3), signal)


def test_patches_are_scaled_one_by_one():
    rows = torch.tensor([[1.0, -1.0], [10.0, -10.0], [0.0, 0.0]])
    assert scale_to_unit_deviation(rows).tolist() == [[1, -1], [1, -1], [0, 0]]


@pytest.mark.parametrize("nonlinearity", ["tanh", "shrink"])
def test_an_encoder_learns_codes_that_it_can_give(nonlinearity):
    generator = torch.Generator().manual_seed(0)
    rows, atoms = torch.randn(400, 5, generator=generator), torch.randn(5, 3, generator=generator)
    teacher, pupil = (regressor.make_predictor(given, nonlinearity, 0.3) for given in (atoms, atoms + 0.1))
    with torch.no_grad():
        wanted = teacher(rows)
    again = copy.deepcopy(pupil)
    regressor.train_encoder(pupil, rows, wanted, seed=0, updates=600)
    assert (pupil(rows) - wanted).square().mean() < 1e-3 * wanted.square().mean()
    regressor.train_encoder(again, rows, wanted, seed=0, updates=600)
    assert torch.equal(pupil(rows), again(rows))


def test_costs_are_medians_and_ratios_to_the_first(monkeypatch):
    clock = iter([0.0, 1.0, 1.0, 3.0, 3.0, 6.0, 10.0, 14.0, 14.0, 20.0, 20.0, 120.0])
    monkeypatch.setattr(costs, "REPEATS", 3)
    monkeypatch.setattr(costs, "perf_counter", lambda: next(clock))
    optimal = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    ways = {"exact": lambda rows: optimal, "late": lambda rows: 0 * optimal}
    first, second = costs.measure_costs(ways, torch.ones(2, 2), optimal)
    assert (first["µs per patch"], first["times the first"], first["‖z* - z‖²"]) == (1e6, 1.0, 0.0)
    assert (second["µs per patch"], second["times the first"]) == (3e6, 3.0)
    assert (second["‖z* - z‖²"], second["relative"]) == (12.5, 1.0)


def test_the_study_measures_ratios_and_costs(settings):
    found = codes.run(settings(), Workbench())
    ratios, speed, errors = found.tables
    assert [(row["signal"], row["against"], row["published dB"]) for row in ratios.rows] == [
        ("learner's optimal", "predicted", 8.6),
        ("Feature-Sign", "learner's optimal", 5.2),
        ("Feature-Sign", "predicted", 3.1),
        ("Feature-Sign", "regressor", 3.2),
    ]
    ways = ["predicted", "feature-sign", "coordinate-descent", "fista"]
    assert [(row["λ"], row["way"]) for row in speed.rows] == [(lam, way) for lam in ("0.2", "0.6") for way in ways]
    assert all(row["times the predictor"] == 1 for row in speed.rows if row["way"].startswith("predicted"))
    published = [row["published"] for row in speed.rows if row["way"] == "feature-sign"]
    assert published == [389.0, 139.0]
    by_way = {row["way"]: row["‖z* - z‖²"] for row in errors.rows}
    assert list(by_way)[:4] == ["predicted", "lista, 1 steps", "lista, 3 steps", "lista, 7 steps"]
    assert by_way["lista, 7 steps"] < by_way["lista, 1 steps"]
    assert by_way["fista, 1 steps"] > by_way["fista, 10 steps"] > by_way["fista, 100 steps"]
    assert by_way["coordinate-descent, 100 steps"] < by_way["coordinate-descent, 1 steps"]
    found.draw(figure := Figure())
    assert len(figure.axes) == 2


def test_a_learner_without_lam_is_refused(settings):
    with pytest.raises(UnknownNameError, match="parameter of random 'lam'"):
        codes.run(settings(learner="random"), Workbench())
