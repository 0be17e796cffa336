import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from featbench.comparison import Workbench
from featbench.errors import UsageError
from featbench.studies import energy, surfaces, toys
from featbench.studies.energy import EnergySettings, compute_auc


@pytest.fixture(autouse=True)
def in_haste(monkeypatch):
    monkeypatch.setattr(surfaces, "DICTIONARY_UPDATES", 40)
    monkeypatch.setattr(surfaces, "UPDATES", 400)
    monkeypatch.setattr(surfaces, "STARTS", 2)


POINTS = np.random.default_rng(0).uniform(-1, 1, (40, 2))


def test_the_energy_of_one_principal_component_is_the_squared_distance_to_its_line():
    direction, across = np.array([0.6, 0.8]), np.array([-0.8, 0.6])
    steps = np.linspace(-1, 1, 11)
    found = surfaces.fit_pca(np.array([0.1, 0.2]) + steps[:, None] * direction, 1)
    for distance in (0.0, 0.3, -0.7):
        point = np.array([0.1, 0.2]) + 0.37 * direction + distance * across
        assert found(point[None])[0] == pytest.approx(distance**2, abs=1e-12)


def test_the_energy_of_k_means_is_the_squared_distance_to_the_nearest_prototype():
    centres = np.array([[0.5, 0.5], [-0.5, 0.0], [0.4, -0.6]])
    found = surfaces.fit_kmeans(np.repeat(centres, 10, axis=0), 3, seed=0)
    expected = ((POINTS[:, None] - centres) ** 2).sum(axis=2).min(axis=1)
    assert found(POINTS) == pytest.approx(expected, abs=1e-6)


def test_the_energy_of_one_sparse_atom_is_in_closed_form():
    # A single atom along (1, 0): z = sign(y₁) max(|y₁| - λ, 0), and the residual is (min(|y₁|, λ), y₂).
    line = np.column_stack([np.linspace(-1, 1, 21), np.zeros(21)])
    found = surfaces.fit_sparse_coding(line, 1, seed=0, lam=0.2, constant=0.0)
    expected = np.minimum(np.abs(POINTS[:, 0]), 0.2) ** 2 + POINTS[:, 1] ** 2
    assert found(POINTS) == pytest.approx(expected, abs=1e-6)


def test_sparse_codes_of_places_tell_near_from_far():
    cluster = np.array([0.5, 0.5]) + 0.01 * np.random.default_rng(0).normal(size=(50, 2))
    found = surfaces.fit_sparse_coding(cluster, 1, seed=0, lam=0.1, constant=0.5)
    assert found(np.array([[0.5, 0.5]]))[0] == pytest.approx(0.1**2, rel=1e-3)  # the atom shrinks by λ
    assert found(np.array([[0.9, 0.9]]))[0] > 2 * 0.1**2


def test_an_autoencoder_of_two_units_reconstructs_a_short_line():
    line = np.linspace(-0.5, 0.5, 30)[:, None] * np.array([[0.6, 0.8]]) + 0.1
    assert surfaces.fit_autoencoder(line, 1, seed=0)(line).mean() < 1e-3


def test_likelihood_raises_the_energy_off_the_data():
    cluster = 0.02 * np.random.default_rng(0).normal(size=(40, 2))
    side = np.linspace(-1, 1, 15)
    square = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    free = surfaces.fit_autoencoder(cluster, 3, seed=0)
    held = surfaces.fit_autoencoder(cluster, 3, seed=0, background=square, sharpness=10.0)
    assert held(square).mean() > free(square).mean()


def test_separation_is_the_area_under_the_roc_curve():
    generator = np.random.default_rng(1)
    data, elsewhere = generator.integers(0, 9, 50).astype(float), generator.integers(3, 12, 70).astype(float)
    labels = np.r_[np.zeros(50), np.ones(70)]
    assert compute_auc(data, elsewhere) == pytest.approx(roc_auc_score(labels, np.r_[data, elsewhere]))


def test_the_toys_lie_in_the_square_and_where_they_should():
    generator = np.random.default_rng(0)
    clusters, spiral = toys.draw_cauchy_clusters(3000, generator), toys.draw_spiral(3000, generator)
    assert clusters.shape == spiral.shape == (3000, 2)
    assert np.abs(clusters).max() <= 1
    # Half of a Cauchy variable lies within its half width, in each coordinate.
    offset = np.abs(clusters[:, None] - np.array(toys.CENTRES)).min(axis=1)
    assert (offset[:, 0] <= toys.WIDTH).mean() == pytest.approx(0.5, abs=0.06)
    radius, angle = np.hypot(*spiral.T), np.arctan2(spiral[:, 1], spiral[:, 0])
    turns = (radius - toys.INNER) / (toys.OUTER - toys.INNER) * toys.TURNS
    apart = (turns - angle / (2 * np.pi) + 0.5) % 1 - 0.5
    assert np.abs(apart * (toys.OUTER - toys.INNER) / toys.TURNS).max() < 6 * toys.NOISE
    # Evenly along the curve: as many points outside half of its length as within.
    assert (turns > toys.TURNS / 2).mean() > 0.6


def test_the_study_fills_its_table_and_its_panels(monkeypatch):
    monkeypatch.setattr(surfaces, "UPDATES", 30)
    monkeypatch.setattr(surfaces, "STARTS", 1)
    monkeypatch.setattr(surfaces, "DICTIONARY_UPDATES", 3)
    found = energy.run(EnergySettings(points=60, test_points=100, grid=9), Workbench())
    (table,) = found.tables
    assert [(row["data"], row["learner"], row["units"]) for row in table.rows] == [
        *(("Cauchy clusters", name, units) for name, units in (("PCA", 1), ("auto-encoder", 3), ("sparse coding", 3))),
        *(("Cauchy clusters", name, 3) for name in ("K-means", "sparse coding, no constant")),
        *(("spiral", name, units) for name, units in (("PCA", 1), ("auto-encoder", 1), ("sparse coding", 20))),
        *(("spiral", name, 20) for name in ("K-means", "sparse coding, no constant")),
    ]
    by_name = {(row["data"], row["learner"]): row for row in table.rows}
    assert by_name["Cauchy clusters", "K-means"]["AUC"] > 0.8
    assert by_name["spiral", "PCA"]["AUC"] < 0.7
    from matplotlib.figure import Figure

    figure = Figure()
    found.draw(figure)
    assert len(figure.axes) == 8
    assert figure.axes[0].images[0].get_array().shape == (9, 9)


@pytest.mark.parametrize("wrong", [{"points": 3}, {"lam": 0.0}, {"constant": -1.0}, {"grid": 1}])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UsageError):
        EnergySettings(**wrong)
