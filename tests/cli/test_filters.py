import numpy as np
import pytest
from PIL import Image

from featbench.cli.filters import ORDERS as OFFERED
from featbench.report.filters import GAP
from featbench.studies.gallery import ORDERS

WAVES = """
    import featbench
    import torch

    class Waves(featbench.FilterLearner):
        \"\"\"Six gratings of rising frequency; they lie on a map.\"\"\"
        name = "waves"
        family = "fixed"
        def filters(self, bank, patches, seed):
            across = torch.arange(8.0)
            waves = [torch.sin(2 * torch.pi * across * k / 16) for k in (3, 1, 2, 6, 5, 4)]
            return torch.stack([wave.expand(bank.fan_in, 8, 8) for wave in waves])
        def grid(self, bank):
            return (3, 2)

    @featbench.hookimpl
    def featbench_learners():
        return [Waves]
"""


@pytest.fixture
def draw(run, write_plugin, tmp_path, unlabelled):
    """Call `featbench filters` on six gratings; returns what it said, and the picture."""
    plugin = write_plugin("waves", WAVES)

    def draw(*options):
        output = tmp_path / "filters.png"
        folder = tmp_path / "photographs"
        if not folder.exists():
            folder.mkdir()
            pixels = np.random.default_rng(0).integers(0, 256, (30, 30), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "one.png")
        asked = ["--features", "waves", "--plugin", plugin, "--unlabelled", folder, "--stages", "6F8", "--quiet"]
        ran = run("filters", *asked, "--output", output, *options)
        return ran, np.asarray(Image.open(output)).astype(float) if output.exists() else None

    return draw


def brightness_changes(picture, rows, columns):
    """Return how often each tile turns from dark to bright or back along its first line: rises with the frequency."""
    side = (picture.shape[1] - GAP) // columns - GAP
    assert picture.shape == (GAP + rows * (side + GAP), GAP + columns * (side + GAP))
    counts = []
    for index in range(6):
        row, column = divmod(index, columns)
        line = picture[GAP + row * (side + GAP), GAP + column * (side + GAP) :][:side]
        counts.append(int(np.abs(np.diff(line)).sum()))
    return counts


def test_filters_that_lie_on_a_map_are_drawn_on_it(draw):
    ran, picture = draw()
    assert ran.code == 0
    assert "6 filters of 8×8" in ran.err
    assert np.argsort(np.argsort(brightness_changes(picture, 3, 2))).tolist() == [2, 0, 1, 5, 4, 3]


def test_sorted_filters_come_off_their_map_lowest_frequency_first(draw):
    _, picture = draw("--sort", "frequency")
    counts = brightness_changes(picture, 2, 3)
    assert counts == sorted(counts)


def test_a_map_may_be_named(draw):
    _, picture = draw("--map", "2x3")
    brightness_changes(picture, 2, 3)
    _, picture = draw("--map", "1×6")
    brightness_changes(picture, 1, 6)


@pytest.mark.parametrize(
    "options, message",
    [
        (["--map", "4x4"], "6 filters do not fill a map of 4×4"),
        (["--map", "wide"], "cannot read --map 'wide': write ROWSxCOLUMNS, such as 16x8"),
        (["--map", "0x6"], "cannot read --map '0x6'"),
        (["--map", "2x3", "--sort", "variance"], "give --sort or --map, not both"),
        (["--sort", "colour"], "invalid choice: 'colour'"),
    ],
)
def test_mistakes_are_reported_and_nothing_is_drawn(draw, options, message):
    ran, picture = draw(*options)
    assert (ran.code, ran.out, picture) == (2, "", None)
    assert message in ran.err


def test_filters_on_several_maps_have_no_map(run, tmp_path):
    store = ["--home", tmp_path / "store", "--output", tmp_path / "filters.png"]
    stages = ["--stages", "4F3-Rabs-PA2/2 > 6F2", "--stage", "2"]
    ran = run("filters", "--features", "random", *stages, "--map", "2x3", *store)
    assert ran.code == 2
    assert "these filters see 4 maps each" in ran.err


def test_the_orders_offered_are_those_there_are():
    assert tuple(ORDERS) == OFFERED
