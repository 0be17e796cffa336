import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from featbench import compare
from featbench.comparison import Workbench
from featbench.errors import FeatbenchError, SplitError, UnknownNameError, UsageError
from featbench.evaluation.metrics import Metric
from featbench.studies import samples
from featbench.studies.samples import SamplesSettings, read_sizes

SMALL = {"protocol": "tiny", "samples": ("2", "5"), "features": "random", "regimes": "R", "draws": 2, "device": "cpu"}
"""Two sizes of a data set of three classes, 12 images each."""

OWN_TEST = """
import numpy as np
import featbench

class Uneven(featbench.Dataset):
    \"\"\"Two classes, of which 4 and 8 train and 3 of each test.\"\"\"
    name = "uneven"
    def fingerprint(self, data_dir):
        return "0"
    def load(self, data_dir):
        labels = np.repeat([0, 1], [7, 11])
        test = np.zeros(18, bool)
        test[[0, 1, 2, 7, 8, 9]] = True
        pixels = np.random.default_rng(0).normal(size=(18, 6, 6)) + labels[:, None, None]
        return featbench.Images(pixels.astype(np.float32), labels, ("a", "b"), test)

@featbench.hookimpl
def featbench_datasets():
    return [Uneven()]

@featbench.hookimpl
def featbench_protocols():
    return [featbench.Protocol(
        name="PROTOCOL", summary="", dataset="uneven", architecture="4F3-Rabs-PA2/2",
        preprocessing=featbench.Preprocessing(), train_per_class=2, test="fixed", features=("random",),
        classifiers=("nearest",),
    )]
"""


@pytest.fixture
def workbench(tiny):
    return Workbench(plugins=[tiny])


@pytest.fixture
def uneven(tiny, write_plugin):
    """A workbench with a protocol that has test images of its own, under a name."""
    return lambda name: Workbench(plugins=[tiny, write_plugin("uneven", OWN_TEST.replace("PROTOCOL", name))])


@pytest.fixture
def drawn():
    """Draw the picture of findings and return its only axis."""

    def drawn(found):
        figure = Figure()
        found.draw(figure)
        figure.draw_without_rendering()
        (axis,) = figure.axes
        return axis

    return drawn


def lines(axis):
    """Return the points of every line by its label in the legend."""
    (legend,) = axis.figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    bars = {container.get_label(): container[0] for container in axis.containers}
    plain = {line.get_label(): line for line in axis.lines}
    return {label: np.transpose({**plain, **bars}[label].get_data(orig=False)) for label in labels}


def test_digits_cell_by_cell(home, drawn):
    settings = {"features": "random,psd(updates=20)", "regimes": "R,U", "draws": 2, "device": "cpu"}
    found = samples.run(SamplesSettings(protocol="digits", samples=("10", "3"), **settings), Workbench())
    summary, points = found.tables
    assert summary.columns == ["features", "regime", "3", "10"]
    assert [row["regime"] for row in summary.rows] == ["R", "U", "–", "–"]
    alone = compare(
        "digits",
        features=["psd(updates=20)"],
        regimes=["U"],
        train_per_class=3,
        draws=2,
        device="cpu",
        track=False,
        home=home.parent / "another",
    )
    (row,) = alone[alone["regime"] == "U"].to_dict("records")
    errors = 100 - np.array(row["scores"])
    form = ".1f" if errors.mean() >= 10 else ".2f"
    assert summary.rows[1]["3"] == f"{errors.mean():{form}} ± {errors.std(ddof=1):{form}}"
    point = points.rows[2]
    assert (point["features"], point["images of each class"], point["n"]) == (row["learner"], 3, 2)
    assert point["error %"] == pytest.approx(errors.mean(), abs=1e-9)
    assert point["±"] == pytest.approx(errors.std(ddof=1), abs=1e-9)
    np.testing.assert_allclose(lines(drawn(found))[f"{row['learner']} U"][0], [3, errors.mean()])
    assert not found.failed


def test_all_images_make_one_draw_and_stand_at_their_mean(uneven, drawn):
    found = samples.run(SamplesSettings(**{**SMALL, "protocol": "own", "samples": ("all", "2")}), uneven("own"))
    summary, points = found.tables
    assert summary.columns == ["features", "regime", "2", "all"]
    assert [(row["images of each class"], row["n"]) for row in points.rows[:2]] == [(2, 2), (6, 1)]  # 4 and 8 train
    assert points.rows[1]["±"] is None
    assert "±" not in summary.rows[0]["all"]
    axis = drawn(found)
    assert [text.get_text() for text in axis.get_xticklabels()] == ["2", "all"]
    assert list(axis.get_xticks()) == [2, 6]
    assert any("the data set's own test images" in note for note in found.notes)


def test_what_the_store_holds_is_not_computed_again(write_learner, tiny, log):
    plugin = write_learner()
    settings = SamplesSettings(**{**SMALL, "features": "counted", "regimes": "U"})
    first, again = (samples.run(settings, Workbench(plugins=[tiny, plugin])) for _ in range(2))
    assert log.count("counted") == 4  # two sizes, two draws
    assert [table.rows for table in first.tables] == [table.rows for table in again.tables]


def test_a_failed_cell_is_a_dash_with_its_reason(tiny, write_learner, drawn):
    plugin = write_learner("bad", "if len(patches.maps) > 8:\n    raise RuntimeError('no luck')\nreturn weight")
    found = samples.run(
        SamplesSettings(**{**SMALL, "features": "bad", "regimes": "U"}), Workbench(plugins=[tiny, plugin])
    )
    (summary, points) = found.tables
    assert found.failed
    assert summary.rows[0]["5"] == "–"
    assert summary.rows[0]["2"] != "–"
    assert [row["status"] for row in points.rows[:2]] == ["ok", "failed"]
    assert any(note.startswith("5 images of each class, bad U: ") and "no luck" in note for note in found.notes)
    assert len(lines(drawn(found))["bad U"]) == 1


def test_a_learner_without_any_curve_is_named_with_the_reason(workbench):
    found = samples.run(SamplesSettings(**{**SMALL, "features": "random,gabor"}), workbench)
    assert [row["features"] for row in found.tables[0].rows] == ["random", "chance", "raw pixels"]
    (note,) = [note for note in found.notes if "left out" in note]
    assert note.startswith("gabor R was left out: gabor does not start from random filters")


def test_a_regime_without_any_curve_is_named_although_baselines_have_it(workbench):
    found = samples.run(SamplesSettings(**{**SMALL, "regimes": "R,fixed"}), workbench)
    assert [note for note in found.notes if note.startswith("random fixed was left out: random is not designed")]


def test_curves_of_several_classifiers_are_told_apart(workbench, drawn):
    found = samples.run(SamplesSettings(**{**SMALL, "classifiers": "nearest,knn(k=1)"}), workbench)
    summary, points = found.tables
    learned = [row["classifier"] for row in summary.rows if row["features"] == "random"]
    assert len(learned) == 2
    assert len({line for line in lines(drawn(found)) if line.startswith("random R ")}) == 2
    assert "classifier" in points.columns


def test_published_curves_stand_beside_and_are_dashed(uneven, drawn, monkeypatch):
    monkeypatch.setitem(samples.PUBLISHED, "own", {"theirs": {6: 12.5, 20: 7.0}})  # 6 train in the mean
    found = samples.run(SamplesSettings(**{**SMALL, "protocol": "own", "samples": ("2", "all")}), uneven("own"))
    assert found.tables[0].rows[-1] == {"features": "published", "regime": "theirs", "2": None, "all": 12.5}
    assert found.source == samples.SOURCE
    axis = drawn(found)
    assert list(lines(axis))[-1] == "theirs, published"
    np.testing.assert_array_equal(lines(axis)["theirs, published"], [[6, 12.5], [20, 7]])
    (line,) = [line for line in axis.lines if line.get_label() == "theirs, published"]
    assert line.get_linestyle() == "--"


def test_published_curves_of_norb_are_whole_and_end_as_the_text_says():
    curves = samples.PUBLISHED["norb"]
    assert {len(errors) for errors in curves.values()} == {8}
    assert (curves["R+R+ abs-N"][4860], curves["R+R+ F-P_A"][4860]) == (5.6, 6.9)  # in the text of the paper
    for errors in curves.values():
        assert list(errors) == sorted(errors)
        assert errors[20] == max(errors.values())


def test_the_picture_bears_deviations_above_the_error_and_no_error_at_all(tmp_path, drawn):
    from featbench.report.figure import draw_png

    rows = {size: {"mean": mean, "std": 3.0} for size, mean in ((2, 99.0), (5, 100.0), (10, 95.0))}
    curves = {("random", "R", "nearest"): rows}

    def draw(figure):
        samples._draw(figure, curves, {2: 2.0, 5: 5.0, 10: 10.0}, {})

    path = tmp_path / "picture.png"
    path.write_bytes(draw_png(draw, (7.5, 4.5)))
    with Image.open(path) as picture:
        assert np.asarray(picture.convert("L")).std() > 5
    figure = Figure()
    draw(figure)
    (axis,) = figure.axes
    assert axis.get_ylim()[0] > 0.1
    assert len(lines(axis)["random R"]) == 2


@pytest.mark.parametrize(
    "given, expected",
    [
        (("100", "10", "all", "10"), [10, 100, "all"]),
        ((30, "all", 2), [2, 30, "all"]),
        ((" all ", " 7"), [7, "all"]),
    ],
)
def test_sizes_ascend_and_all_is_last(given, expected):
    assert read_sizes(given) == expected


@pytest.mark.parametrize("wrong", ["1", "0", "-5", "2.5", "many", "", "All"])
def test_a_wrong_number_is_named(wrong):
    with pytest.raises(UsageError, match=f"--samples takes all, and numbers of at least 2 .* not '{wrong}'"):
        SamplesSettings(samples=("10", wrong))


def test_settings_of_refinement_reach_the_refined_cells_alone(workbench):
    request = samples._make_request(SamplesSettings(**{**SMALL, "regimes": "R,R+", "refine": "epochs=3"}), 5)
    cells = [cell for cell in workbench.plan(request) if str(cell.learner) == "random"]
    assert [cell.refinement and cell.refinement.epochs for cell in cells] == [None, None, 3, 3]
    assert {cell.train_per_class for cell in cells} == {5}
    with pytest.raises(FeatbenchError, match="epoch"):
        samples.run(SamplesSettings(**{**SMALL, "refine": "epoch=3"}), workbench)


def test_mistakes_are_reported_before_anything_is_computed(write_learner, tiny, log):
    workbench = Workbench(plugins=[tiny, write_learner()])
    small = {**SMALL, "features": "counted", "regimes": "U"}
    with pytest.raises(
        SplitError, match=r"class 'a' has 12 images, but 30 are asked for .*: ask for fewer with --samples$"
    ):
        samples.run(SamplesSettings(**{**small, "samples": ("2", "5", "30")}), workbench)
    with pytest.raises(UsageError, match="--samples all leaves no image of tiny to test on: give numbers alone"):
        samples.run(SamplesSettings(**{**small, "samples": ("2", "all")}), workbench)
    with pytest.raises(UnknownNameError, match="did you mean 'random'"):
        samples.run(SamplesSettings(**{**small, "features": "randm"}), workbench)
    with pytest.raises(UnknownNameError, match="protocol"):
        samples.run(SamplesSettings(**{**small, "protocol": "tinny"}), workbench)
    assert log.count("counted") == 0


def test_the_command_line_reads_numbers_and_all(run, tiny, tmp_path):
    options = ["--samples", "2,4", "--features", "random", "--regimes", "R", "--draws", "2", "--device", "cpu"]
    shown = ["--plugin", tiny, "--output", tmp_path / "out", "--format", "csv"]
    ran = run("study", "samples", "--protocol", "tiny", *options, *shown)
    assert ran.code == 0, ran.err
    assert "Test error in %, by training images of each class" in ran.out
    assert "--samples 2,4" in (tmp_path / "out" / "samples.md").read_text("utf-8")
    with Image.open(tmp_path / "out" / "samples.png") as picture:
        picture.load()
        assert min(picture.size) > 300


@pytest.mark.parametrize(
    "unit, larger_is_better, heading, value, scale",
    [
        ("%", True, "test error %", 5.0, "log"),
        ("%", False, "test loss %", 95.0, "linear"),
        ("", True, "test loss", 95.0, "linear"),
        ("", False, "test loss", 95.0, "linear"),
    ],
)
def test_curves_show_the_error_of_percentages_and_otherwise_the_metric(unit, larger_is_better, heading, value, scale):
    metric = Metric("loss", lambda *_: 0.0, unit=unit, larger_is_better=larger_is_better)
    quantity = samples._choose_quantity(metric)
    row = {"mean": 95.0, "std": None, "n": 1, "status": "ok"}
    curves, positions = {("random", "R", "nearest"): {2: row, 5: row}}, {2: 2.0, 5: 5.0}
    (summary,) = samples._make_summary(curves, positions, {}, quantity).rows
    assert float(summary["2"]) == pytest.approx(value)
    points = samples._make_points(curves, positions, quantity).rows
    assert [point[heading.removeprefix("test ")] for point in points] == [value, value]
    figure = Figure()
    samples._draw(figure, curves, positions, {}, quantity)
    (axis,) = figure.axes
    assert (axis.get_ylabel(), axis.get_yscale()) == (heading, scale)
    assert axis.lines[0].get_ydata().tolist() == [value, value]
