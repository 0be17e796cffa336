import numpy as np
import pytest
from PIL import Image

from featbench.cli.main import main
from featbench.errors import UsageError
from featbench.studies.gallery import ORDERS, DrawnFilters, put_on_map, sort_filters

SMALL = "psd(updates=3,patches=200)"


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for index, size in enumerate([(40, 30), (30, 40)]):
        Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return folder


def test_filters_of_a_folder_of_images_are_drawn(photographs, tmp_path):
    output = tmp_path / "filters.png"
    stages = ["--stages", "9F5"]
    assert (
        main(["filters", "--unlabelled", str(photographs), "--features", SMALL, *stages, "--output", str(output)]) == 0
    )
    picture = np.asarray(Image.open(output))
    # Three rows of three tiles of 5 × 8 pixels, with gaps of 2.
    assert picture.shape == (2 + 3 * 42, 2 + 3 * 42)
    assert len(np.unique(picture)) > 20


def test_the_decoder_is_another_picture(photographs, tmp_path):
    pictures = []
    for extra in ([], ["--decoder"]):
        output = tmp_path / "filters.png"
        command = ["filters", "--unlabelled", str(photographs), "--features", SMALL, "--stages", "9F5", *extra]
        assert main([*command, "--output", str(output)]) == 0
        pictures.append(output.read_bytes())
    assert pictures[0] != pictures[1]


@pytest.mark.parametrize("regime", ["U", "U+"])
def test_filters_of_a_protocol_are_those_of_its_cells(regime, tmp_path):
    store, output = ["--home", str(tmp_path / "store")], tmp_path / "filters.png"
    command = ["--features", SMALL, "--regimes", regime, *store]
    assert main(["filters", *command, "--output", str(output)]) == 0
    assert main(["compare", *command, "--draws", "1", "--no-track", "--quiet"]) == 0
    before = output.read_bytes()
    assert main(["filters", *command, "--output", str(output)]) == 0
    assert output.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--features", "random,psd"], "one learner at a time"),
        (["--features", "random", "--decoder"], "no 'decoder' to draw"),
        (["--stage", "2", "--features", "random"], "no stage 2"),
        (["--unlabelled", "/nowhere"], "no folder of images /nowhere"),
        (["--features", "random", "--regimes", "U"], "nothing to learn"),
        (["--features", "raw-pixels"], "no filters to draw"),
    ],
)
def test_what_cannot_be_drawn_is_reported(arguments, message, tmp_path, capsys):
    store = ["--home", str(tmp_path / "store"), "--output", str(tmp_path / "filters.png")]
    assert main(["filters", *arguments, *store]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "filters.png").exists()


def test_a_photograph_that_is_too_small_is_named(photographs, tmp_path, capsys):
    Image.new("L", (5, 7)).save(photographs / "small.png")
    assert main(["filters", "--unlabelled", str(photographs), "--output", str(tmp_path / "filters.png")]) == 2
    expected = f"{photographs / 'small.png'} comes to 7×5 pixels, but 9×9 are needed at least"
    assert expected in capsys.readouterr().err


def grating(frequency, angle, size=12):
    """A wave of `frequency` cycles per pixel whose crests lie across `angle`, under a Gaussian window."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    window = np.exp(-(x**2 + y**2) / (2 * (size / 4) ** 2))
    return window * np.sin(2 * np.pi * frequency * (np.cos(angle) * x + np.sin(angle) * y))


def test_frequency_is_in_cycles_per_pixel():
    frequencies = np.array([0.15, 0.2, 0.25, 0.3])
    weight = np.stack([grating(frequency, 0.4)[None] for frequency in frequencies])
    assert ORDERS["frequency"](weight) == pytest.approx(frequencies, abs=0.02)


def test_orientation_is_the_direction_of_the_wave():
    angles = np.array([0, 0.3, 1.0, np.pi / 2, 2.0, 3.0])
    weight = np.stack([grating(0.2, angle)[None] for angle in angles])
    assert ORDERS["orientation"](weight) == pytest.approx(angles, abs=0.03)
    assert ORDERS["orientation"](-3 * weight) == pytest.approx(ORDERS["orientation"](weight))


def test_filters_are_sorted_by_falling_variance():
    weight = np.random.default_rng(0).normal(size=(5, 2, 3, 3)) * np.array([1, 3, 2, 5, 0])[:, None, None, None]
    shown = sort_filters(DrawnFilters(weight, (5, 1)), "variance")
    assert np.array_equal(shown.weight, weight[[3, 1, 2, 0, 4]])
    assert shown.grid is None


@pytest.mark.parametrize("order", ORDERS)
def test_filters_that_are_alike_keep_their_order_and_blank_ones_are_sorted_too(order):
    weight = np.zeros((3, 1, 4, 4))
    weight[:, 0, 0, 0] = [0, 1e-30, 0]
    assert sort_filters(DrawnFilters(weight), order).weight.shape == weight.shape
    assert np.isfinite(ORDERS[order](weight)).all()


def test_a_map_must_be_filled():
    weight = np.zeros((6, 1, 2, 2))
    assert put_on_map(DrawnFilters(weight), 2, 3).grid == (2, 3)
    with pytest.raises(UsageError, match="6 filters do not fill a map of 2×2"):
        put_on_map(DrawnFilters(weight), 2, 2)
    with pytest.raises(UsageError, match="these filters see 2 maps each"):
        put_on_map(DrawnFilters(np.zeros((6, 2, 2, 2))), 2, 3)
