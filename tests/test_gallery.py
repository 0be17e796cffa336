import numpy as np
import pytest
from PIL import Image

from featbench.cli.main import main

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
def test_what_cannot_be_drawn_is_said(arguments, message, tmp_path, capsys):
    store = ["--home", str(tmp_path / "store"), "--output", str(tmp_path / "filters.png")]
    assert main(["filters", *arguments, *store]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "filters.png").exists()


def test_a_photograph_that_is_too_small_is_named(photographs, tmp_path, capsys):
    Image.new("L", (5, 7)).save(photographs / "small.png")
    assert main(["filters", "--unlabelled", str(photographs), "--output", str(tmp_path / "filters.png")]) == 2
    expected = f"{photographs / 'small.png'} comes to 7×5 pixels, but 9×9 are needed at least"
    assert expected in capsys.readouterr().err
