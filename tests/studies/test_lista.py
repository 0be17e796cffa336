import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from featbench.comparison import Workbench
from featbench.errors import UsageError
from featbench.learning.unrolled import Lista, make_ista_weights
from featbench.sparse import ista
from featbench.studies import lista
from featbench.studies.coding import find_optimal_codes
from featbench.studies.lista import PUBLISHED, ListaSettings
from featbench.studies.regressor import make_unrolled, train_encoder

SMALL = {
    "size": 4,
    "patches": 200,
    "atoms": (8, 20),
    "dictionary_updates": 20,
    "updates": 40,
    "fista": (1, 5, 200),
    "lista": (1, 3),
    "lcod": (2,),
    "cod": (1, 9),
}


@pytest.fixture
def settings(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (30, 25), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "one.png")
    return lambda **changes: ListaSettings(**{**SMALL, "unlabelled": str(folder), **changes})


def test_each_way_is_measured_for_each_number_of_atoms(settings):
    found = lista.run(settings(), Workbench())
    errors, matches = found.tables
    for atoms in (8, 20):
        by_way = {row["way"]: row for row in errors.rows if row["atoms"] == atoms}
        assert list(by_way)[:4] == ["D tanh", "shrink", "LISTA 1", "LISTA 3"]
        assert list(by_way)[4:] == ["LCoD 2", "FISTA 1", "FISTA 5", "FISTA 200", "CoD 1", "CoD 9"]
        assert by_way["FISTA 1"]["error"] > by_way["FISTA 5"]["error"] > by_way["FISTA 200"]["error"]
        assert by_way["FISTA 200"]["relative"] < 1e-6
        assert 0 < by_way["shrink"]["relative"] < 1.5
        found_at = {row["way"]: row["FISTA iterations to match"] for row in matches.rows if row["atoms"] == atoms}
        assert found_at["D tanh"] in ("1", "5", "200")
    assert "160 patches of 4×4 to train on, 40 to measure on" in found.notes[0]
    found.draw(figure := Figure())
    assert len(figure.axes) == 2


def test_lista_starts_as_ista():
    generator = torch.Generator().manual_seed(0)
    atoms = torch.randn(6, 9, generator=generator)
    atoms = atoms / atoms.norm(dim=0)
    rows = torch.randn(20, 6, generator=generator)
    for steps in (0, 1, 4):
        expected = ista(rows, atoms, 0.2, iterations=steps + 1, tolerance=0.0).codes
        assert torch.allclose(make_unrolled(Lista, make_ista_weights(atoms, 0.2), steps)(rows), expected, atol=1e-5)


def test_training_brings_lista_nearer():
    generator = torch.Generator().manual_seed(0)
    atoms = torch.randn(6, 9, generator=generator)
    atoms = atoms / atoms.norm(dim=0)
    rows = torch.randn(500, 6, generator=generator)
    wanted = find_optimal_codes(rows, atoms, 0.2)
    encoder = make_unrolled(Lista, make_ista_weights(atoms, 0.2), 1)
    before = (encoder(rows) - wanted).square().mean().item()
    train_encoder(encoder, rows, wanted, seed=0, updates=200)
    assert (encoder(rows) - wanted).square().mean().item() < 0.5 * before


def test_published_numbers_stand_where_they_were_published(settings):
    (errors, _) = lista.run(settings(atoms=(100,), patches=300, fista=(1, 2)), Workbench()).tables
    published = {row["way"]: row["published"] for row in errors.rows}
    assert published["FISTA 1"] == PUBLISHED["FISTA 1"][100] == 21.6
    assert published["shrink"] == 3.29


def test_a_match_that_is_not_reached_is_reported():
    rows = [{"atoms": 3, "way": "shrink", "error": 0.1}, {"atoms": 3, "way": "FISTA 7", "error": 0.2}]
    assert lista._match_iterations(rows).rows[0]["FISTA iterations to match"] == "more than 7"


def test_a_penalty_that_leaves_no_code_is_refused(settings):
    with pytest.raises(UsageError, match="all codes are zero"):
        lista.run(settings(lam=1e4), Workbench())
