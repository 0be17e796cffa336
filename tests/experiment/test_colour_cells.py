"""Cells of a protocol in colour, from a plugin's images to their scores."""

import numpy as np
import pytest
from PIL import Image

import featbench
from featbench.cli.main import main
from featbench.comparison import Workbench
from featbench.data.maps import Preprocessing
from featbench.experiment.request import Request

HUES = '''
import numpy as np
import featbench

class Hues(featbench.Dataset):
    """Three classes of 8x8 images, 16 each, that differ in hue alone: their grey values have the same distribution."""
    name = "hues"
    def fingerprint(self, data_dir):
        return "0"
    def load(self, data_dir):
        generator = np.random.default_rng(0)
        labels = np.repeat(np.arange(3), 16)
        # Blobs of light, in a colour of the class: each has the luminance 100 times the light.
        light = generator.uniform(0.2, 1, size=(48, 8, 8, 1))
        hue = np.eye(3)[labels] * (100 / np.array([0.299, 0.587, 0.114]))
        return featbench.Images((light * hue[:, None, None]).astype(np.float32), labels, ("red", "green", "blue"))

@featbench.hookimpl
def featbench_datasets():
    return [Hues()]

@featbench.hookimpl
def featbench_protocols():
    common = dict(
        summary="8x8 images", dataset="hues", architecture="6F3-Rabs-N3-PA2/2", train_per_class=8, test="rest",
        features=("random",), regimes=("R", "U", "R+", "U+", "fixed"), classifiers=("logistic",), draws=2,
    )
    return [
        featbench.Protocol(name="hues", preprocessing=featbench.Preprocessing(channels=3), **common),
        featbench.Protocol(name="hues-grey", preprocessing=featbench.Preprocessing(), **common),
    ]
'''


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "hues_plugin.py"
    path.write_text(HUES)
    return path


def compare(plugin, protocol, features, **options):
    home = plugin.parent / "store"
    return featbench.compare(protocol, features=features, plugins=[plugin], home=home, track=False, **options)


LEARNERS = ["random", "kmeans(patches=400)", "psd(updates=20,patches=400)"]


def scores(rows):
    """Return the mean score of each learner and regime that go together; all of them must have one.

    Raw pixels and chance, which every table has, are left out.
    """
    ran = rows[(rows["status"] != "skipped") & ~rows["learner"].isin(["raw-pixels", "chance"])]
    assert set(ran["status"]) == {"ok"}
    return {(row["learner"].partition("(")[0], row["regime"]): float(row["mean"]) for _, row in ran.iterrows()}


def test_learners_of_filters_run_in_colour_and_tell_hues_apart(plugin):
    pairs = {("random", "R"), ("kmeans", "U"), ("psd", "U")}
    found = scores(compare(plugin, "hues", LEARNERS, regimes=["R", "U"]))
    assert set(found) == pairs
    assert min(found.values()) > 90
    found = scores(compare(plugin, "hues-grey", LEARNERS, regimes=["R", "U"]))
    assert set(found) == pairs
    assert max(found.values()) < 70


def test_networks_are_refined_in_colour(plugin):
    found = scores(compare(plugin, "hues", LEARNERS[:2], regimes=["R+", "U+"], refine="epochs=10", draws=1))
    assert set(found) == {("random", "R+"), ("kmeans", "U+")}
    assert min(found.values()) > 90


def test_two_stages_run_in_colour(plugin):
    found = scores(compare(plugin, "hues", LEARNERS[:2], regimes=["R", "U"], stages="6F3-Rabs > 8F3:3-Rabs-N3-PA2/2"))
    assert set(found) == {("random", "R"), ("kmeans", "U")}
    assert min(found.values()) > 90


@pytest.mark.parametrize(
    ("features", "regime", "reason"),
    [
        ("sift", "fixed", "SIFT describes one map, and 3 come in: make the images grey"),
        ("hog(cell=2)", "fixed", "HOG describes one map, and 3 come in: make the images grey"),
        ("scspm(size=4)", "U", "scspm describes one map, and 3 come in: make the images grey"),
        ("gabor", "fixed", "Gabor filters are designed for one map, and 3 come in"),
    ],
)
def test_what_describes_grey_images_alone_is_skipped_with_its_reason(plugin, features, regime, reason):
    rows = compare(plugin, "hues", [features, "random"], regimes=[regime, "R"], draws=1)
    told = rows[(rows["learner"] == features) & (rows["regime"] == regime)]
    assert set(told["status"]) == {"skipped"}
    assert all(reason in message for message in told["message"])
    assert set(scores(rows)) == {("random", "R")}


def test_images_in_colour_are_read_back_from_the_store(plugin):
    first = Workbench(plugins=[plugin], home=plugin.parent / "store").steps
    second = Workbench(plugins=[plugin], home=plugin.parent / "store").steps
    for channels in (3, 1):
        preprocessing = Preprocessing(channels=channels)
        images, maps = first.load("hues", preprocessing)
        again, same = second.load("hues", preprocessing)
        assert maps.shape == same.shape == (channels, 8, 8)
        assert isinstance(again.pixels.flat, np.memmap) and not isinstance(images.pixels.flat, np.memmap)
        assert np.array_equal(images.pixels.flat, again.pixels.flat)
        assert np.array_equal(maps[:].numpy(), same[:].numpy())


def test_a_second_run_in_colour_computes_nothing(plugin):
    workbench = Workbench(plugins=[plugin], home=plugin.parent / "store")
    request = Request(protocol="hues", features=LEARNERS[:2], regimes=["R", "U"])
    first, second = (workbench.compare(request, track=False) for _ in range(2))
    assert (first.computed, second.computed) == (8, 0)  # two draws of two learners, raw pixels and chance
    assert scores(second.rows) == scores(first.rows)


def test_filters_are_learned_in_colour_on_a_folder_of_photographs(plugin):
    folder = plugin.parent / "photographs"
    folder.mkdir()
    generator = np.random.default_rng(0)
    Image.fromarray(generator.integers(0, 256, (12, 15, 3), dtype=np.uint8)).save(folder / "colour.png")
    Image.fromarray(generator.integers(0, 256, (14, 11), dtype=np.uint8)).save(folder / "grey.png")
    rows = compare(plugin, "hues", ["kmeans(patches=400)"], regimes=["U"], unlabelled=folder)
    assert set(rows["status"]) == {"ok"}


@pytest.mark.parametrize(("protocol", "mode"), [("hues", "RGB"), ("hues-grey", "L")])
def test_the_picture_of_filters_is_in_the_colours_of_the_images(plugin, protocol, mode):
    output = plugin.parent / "filters.png"
    command = ["filters", "--protocol", protocol, "--features", "random", "--regimes", "R", "--plugin", str(plugin)]
    store = ["--home", str(plugin.parent / "store"), "--output", str(output)]
    assert main([*command, *store, "--quiet"]) == 0
    assert Image.open(output).mode == mode
    assert main([*command, *store, "--quiet", "--sort", "variance"]) == 0
    assert Image.open(output).mode == mode
    assert main([*command, *store, "--quiet", "--map", "2x3"]) == 0
    assert Image.open(output).size == (2 + 3 * 38, 2 + 2 * 38)


def test_an_extractor_sees_colour():
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (10, 12, 12, 3), dtype=np.uint8)
    colour = featbench.Extractor("4F3-PA2/2", preprocessing=Preprocessing(channels=3)).fit(images)
    assert colour.transform(images).shape == (10, 4 * 5 * 5)
    # Exchanging two channels of an image changes what colour sees, and leaves the mean and the deviation as they are.
    assert np.abs(colour.transform(images[..., ::-1]) - colour.transform(images)).max() > 0.1


def test_equal_channels_give_the_responses_of_a_grey_image():
    grey = np.random.default_rng(0).integers(0, 256, (6, 12, 12), dtype=np.uint8)
    given = {"standardise": True, "lcn": 1.0}
    one = featbench.Extractor("4C3-Rabs", Spread(), preprocessing=Preprocessing(**given)).fit(grey)
    three = featbench.Extractor("4C3-Rabs", Spread(), preprocessing=Preprocessing(**given, channels=3)).fit(grey)
    assert np.abs(three.transform(grey) - one.transform(grey)).max() < 1e-4


class Spread(featbench.FilterLearner):
    """Random filters on one map, spread evenly over all maps: alike maps add up to the response to one."""

    name = "spread"
    family = "random"

    def filters(self, bank, patches, seed):
        weight = np.random.default_rng(seed).normal(size=(bank.filters, 1, bank.size, bank.size))
        return (weight / bank.fan_in).repeat(bank.fan_in, axis=1).astype(np.float32)
