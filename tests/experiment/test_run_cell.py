import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featbench.comparison import Workbench
from featbench.data.maps import JoinedMaps, Preprocessing, make_maps
from featbench.errors import DataError
from featbench.evaluation.scoring import compute_score
from featbench.experiment.cell import Cell
from featbench.experiment.request import Request
from featbench.experiment.run_cell import run_cell
from featbench.experiment.steps import Steps
from featbench.features.rows import Rows
from featbench.registry import Registry

OWN_TEST = '''
from pathlib import Path
import numpy as np
import featbench

class OwnTest(featbench.Dataset):
    """Like tiny, with a test split of its own; data_dir/permute shuffles the labels of the test images."""
    name = "own-test"
    def fingerprint(self, data_dir):
        return str((Path(data_dir) / "permute").exists())
    def load(self, data_dir):
        generator = np.random.default_rng(0)
        labels = np.repeat(np.arange(3), 16)
        patterns, noise = generator.normal(size=(3, 6, 6)), generator.normal(size=(48, 6, 6))
        pixels = (patterns[labels] + noise).astype(np.float32)
        test = np.tile(np.arange(16) >= 8, 3)
        if (Path(data_dir) / "permute").exists():
            labels[test] = np.roll(labels[test], 8)
        return featbench.Images(pixels, labels, ("a", "b", "c"), test)

@featbench.hookimpl
def featbench_datasets():
    return [OwnTest()]

@featbench.hookimpl
def featbench_protocols():
    return [featbench.Protocol(
        name="own-test", summary="", dataset="own-test", architecture="4F3-Rabs-PA2/2",
        preprocessing=featbench.Preprocessing(), train_per_class=5, test="fixed", features=("random", "counted"),
        regimes=("R", "U", "R+", "U+"), classifiers=("nearest", "logistic"), draws=2,
    )]
'''


@pytest.fixture
def own_test(write_plugin):
    return write_plugin("own_test", OWN_TEST)


@pytest.fixture
def counted(write_learner):
    """A learner whose filters are patches it is shown."""
    return write_learner("counted", "return patches.sample(bank.filters) * self.scale + 0 * weight")


def run_all(plugins, home, data_dir):
    """Run the whole protocol; return its store, and the runs by cell."""
    bench = Workbench(plugins=plugins, home=home, data_dir=data_dir)
    comparison = bench.compare(Request("own-test", device="cpu"), track=False)
    assert [run.result.message for run in comparison.runs] == [""] * len(comparison.runs)
    return bench, {str(run.cell): run for run in comparison.runs}


def test_test_labels_reach_the_scorer_only(tiny, own_test, counted, tmp_path):
    plugins = [tiny, own_test, counted]
    (tmp_path / "plain").mkdir()
    (tmp_path / "permuted").mkdir()
    (tmp_path / "permuted/permute").touch()
    plain, plain_runs = run_all(plugins, tmp_path / "one", tmp_path / "plain")
    permuted, permuted_runs = run_all(plugins, tmp_path / "other", tmp_path / "permuted")
    assert plain_runs.keys() == permuted_runs.keys()
    assert len(plain_runs) == 2 * (1 + 2 + 4 * 2)
    different = 0
    for name, run in plain_runs.items():
        other = permuted_runs[name]
        assert run.result.key != other.result.key
        different += run.result.score != other.result.score
        assert run.result.report == other.result.report
        mine, _ = plain.store.read_array("predictions", run.result.key)
        theirs, _ = permuted.store.read_array("predictions", other.result.key)
        assert np.array_equal(mine, theirs)
    assert different > len(plain_runs) / 2
    assert artifacts(plain) == artifacts(permuted)


def artifacts(bench):
    """Return the bytes of all filters, networks and features, whatever their keys are."""
    found = {
        kind: sorted(path.read_bytes() for path in (bench.store.home / "artifacts" / kind).glob(f"*{ending}"))
        for kind, ending in (("filters", ".safetensors"), ("networks", ".safetensors"), ("features", ".npy"))
    }
    # Two draws of U and one R; two of R+ and of U+; train and test of each, for raw pixels and chance as well.
    assert {kind: len(files) for kind, files in found.items()} == {"filters": 3, "networks": 4, "features": 21}
    return found


def test_training_labels_do_reach_the_classifier(tiny, own_test, counted, tmp_path):
    # The test above would pass if labels reached nothing at all.
    plugins = [tiny, own_test, counted]
    (tmp_path / "plain").mkdir()
    _, plain_runs = run_all(plugins, tmp_path / "one", tmp_path / "plain")
    own_test.write_text(
        OWN_TEST.replace("labels[test] = np.roll", "labels[~test] = np.roll").replace(
            "np.roll(labels[test], 8)", "np.roll(labels[~test], 4)"
        )
    )
    (tmp_path / "plain/permute").touch()
    _, other_runs = run_all(plugins, tmp_path / "other", tmp_path / "plain")
    changed = [name for name, run in plain_runs.items() if run.result.score != other_runs[name].result.score]
    assert len(changed) > len(plain_runs) / 2


def plan(plugins, **request):
    return Workbench(plugins=plugins).plan(Request("tiny", device="cpu", **request))


def test_a_cell_gives_the_same_with_and_without_a_store(tiny, counted, store):
    cells = plan([tiny, counted], features=["random", "counted"], draws=1)
    plain = Steps(Registry([tiny, counted]), None)
    bench = Workbench(plugins=[tiny, counted])
    for cell in cells:
        alone, cached, again = run_cell(cell, plain), run_cell(cell, bench.steps), run_cell(cell, bench.steps)
        for outcome in (cached, again):
            assert outcome.score == alone.score
            assert outcome.report == alone.report
            assert np.array_equal(outcome.predictions, alone.predictions)
        assert again.seconds.extract == cached.seconds.extract


@pytest.mark.parametrize("name", ["thresholds", "table"])
def test_what_a_learner_keeps_with_its_filters_comes_back_from_the_store(tiny, write_learner, name):
    plugin = write_learner(
        "keeper", f"return featbench.Filters(weight, extras={{'{name}': weight[:, 0, 0, 0]}})", "random"
    )
    encoder = f"""
    def encoder(self, filters, table):
        from featbench.stages.encoders import build_tanh_encoder
        return build_tanh_encoder(featbench.Filters(filters.weight, filters.extras['{name}']), table)

@featbench.hookimpl
"""
    plugin.write_text(plugin.read_text().replace("\n@featbench.hookimpl\n", encoder))
    cell = plan([tiny, plugin], features=["keeper"], regimes=["R"], draws=1)[-1]
    first = run_cell(cell, Workbench(plugins=[tiny, plugin]).steps)
    again = run_cell(cell, Workbench(plugins=[tiny, plugin]).steps)
    assert np.array_equal(first.predictions, again.predictions)


def test_what_went_before_does_not_change_a_cell(tiny, counted):
    cells = plan([tiny, counted], features=["random", "counted"], draws=1)
    cell = cells[-1]
    alone = run_cell(cell, Steps(Registry([tiny, counted]), None))
    steps = Steps(Registry([tiny, counted]), None)
    for before in cells[:-1]:
        run_cell(before, steps)
    torch.manual_seed(123)
    np.random.seed(123)
    last = run_cell(cell, steps)
    assert last.score == alone.score
    assert np.array_equal(last.predictions, alone.predictions)


def test_a_learner_that_draws_from_the_global_generators_is_reproducible(tiny, write_learner):
    body = """
        import random
        return torch.randn(bank.shape) + random.random() + np.random.rand()
    """
    plugins = [tiny, write_learner("careless", body)]
    cell = plan(plugins, features=["careless"], regimes=["U"])[-1]
    steps = Steps(Registry(plugins), None)
    images, maps = steps.load(cell.dataset, cell.preprocessing)
    split = steps.split(cell, images)
    first = list(steps.learn(cell, split, maps)[0].parameters())
    torch.rand(7)
    second = list(steps.learn(cell, split, maps)[0].parameters())
    assert [tuple(weight.shape) for weight in first[:1]] == [(4, 1, 3, 3)]
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_the_score_is_the_percentage_of_right_predictions(tiny):
    cell = plan([tiny], regimes=["R"], draws=1)[1]
    steps = Steps(Registry([tiny]), None)
    outcome = run_cell(cell, steps)
    images, _ = steps.load(cell.dataset, cell.preprocessing)
    truth = images.labels[steps.split(cell, images).test]
    right = sum(int(a) == int(b) for a, b in zip(outcome.predictions, truth, strict=True))
    assert outcome.score.value == pytest.approx(100 * right / 24)
    assert outcome.score.metric == "accuracy"


def test_the_mean_per_class_weighs_classes_alike():
    labels, predictions = np.array([0, 0, 0, 1, 2, 2]), np.array([0, 0, 1, 1, 0, 2])
    metric = Registry().metric
    assert compute_score(metric("accuracy"), predictions, labels, 3).value == pytest.approx(100 * 4 / 6)
    expected = 100 * (2 / 3 + 1 + 1 / 2) / 3
    assert compute_score(metric("mean-per-class-accuracy"), predictions, labels, 3).value == pytest.approx(expected)


def test_a_learner_sees_the_training_images_of_its_draw_and_no_others(tiny, write_learner, log):
    body = """
        log(f"images{len(patches.maps)}")
        for image in patches.maps.images[:]:
            log("seen" + str(round(float(image.double().sum() + 1e3 * image.flatten()[0].double()), 3)))
        return weight
    """
    plugins = [tiny, write_learner("counted", body)]
    bench = Workbench(plugins=plugins)
    cells = plan(plugins, features=["counted"], regimes=["U"], draws=2)
    for cell in cells[-2:]:
        log.path.unlink(missing_ok=True)
        images, maps = bench.steps.load(cell.dataset, cell.preprocessing)
        split = bench.steps.split(cell, images)
        run_cell(cell, Steps(Registry(plugins), None))
        sums = [image.double().sum() + 1e3 * image.flatten()[0].double() for image in maps.select(split.train)[:]]
        expected = {f"seen{round(float(total), 3)}" for total in sums}
        assert {line for line in log.lines() if line.startswith("seen")} == expected
        assert len(expected) == 12
        assert log.count("images12") == 1


@pytest.mark.parametrize("family, regime", [("random", "R"), ("fixed", "fixed"), ("supervised", "R+")])
def test_only_unsupervised_learners_are_given_patches(tiny, write_learner, family, regime):
    plugins = [tiny, write_learner("counted", "assert patches is None\nreturn weight", family=family)]
    cell = plan(plugins, features=["counted"], regimes=[regime])[-1]
    assert cell.skip == ""
    assert run_cell(cell, Steps(Registry(plugins), None)).score.value >= 0


def test_filters_are_learned_on_the_unlabelled_folder_instead(tiny, write_learner, unlabelled, log):
    body = """
        log(f"images{len(patches.maps)}")
        log("x".join(map(str, patches.maps.images[:1].shape)))
        return patches.sample(bank.filters)
    """
    plugins = [tiny, write_learner("counted", body)]
    cells = plan(plugins, features=["counted"], regimes=["U"], unlabelled=str(unlabelled))
    outcome = run_cell(cells[-1], Steps(Registry(plugins), None))
    assert (log.count("images5"), log.count("1x1x9x7")) == (1, 1)
    assert len(outcome.predictions) == 24


def test_unlabelled_images_keep_their_size_and_are_normalised_alike(unlabelled):
    maps = Steps(Registry(), None).load_pool(str(unlabelled), Preprocessing(size=3, pad=True))
    assert maps[:].shape == (5, 1, 9, 7)
    for image in maps[:]:
        assert float(image.mean()) == pytest.approx(0, abs=1e-5)
        assert float(image.std(correction=0)) == pytest.approx(1, abs=1e-5)


def test_draws_on_an_unlabelled_folder_share_their_filters(compare_tiny, write_learner, unlabelled, log):
    options = ("--features", "counted", "--unlabelled", unlabelled, "--draws", "3")
    ran = compare_tiny(*options, plugins=[write_learner("counted")])
    assert {row["regime"] for row in ran.rows if row["learner"] == "counted"} == {"U", "U+"}
    assert ran.code == 0
    assert log.count("counted") == 1


def test_a_learner_of_whole_networks_gets_the_shape_of_the_images(tiny, write_plugin):
    network = write_plugin(
        "whole",
        """
        from dataclasses import dataclass
        from typing import ClassVar
        import torch
        import featbench

        @dataclass(frozen=True)
        class Whole(featbench.NetworkLearner):
            name: ClassVar[str] = "whole"
            family: ClassVar[str] = "unsupervised"
            width: int = 5
            def network(self, shape, maps, seed):
                assert shape == (1, 6, 6) and len(maps) == 12, (shape, len(maps))
                return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, self.width))

        @featbench.hookimpl
        def featbench_learners():
            return [Whole]
        """,
    )
    plugins = [tiny, network]
    cells = [cell for cell in plan(plugins, features=["whole(width=7)"], draws=1) if cell.learner.name == "whole"]
    assert [(cell.regime.name, cell.architecture) for cell in cells] == [("U", ""), ("U+", "")]
    bench = Workbench(plugins=plugins)
    for cell in cells:
        assert len(run_cell(cell, bench.steps).predictions) == 24
    shapes = {np.load(path).shape for path in (bench.store.home / "artifacts/features").glob("*.npy")}
    assert shapes == {(36, 7)}


def test_progress_is_reported_step_by_step(tiny, counted):
    reports = []
    plugins = [tiny, counted]
    cell = plan(plugins, features=["counted"], regimes=["U+"], draws=1)[-1]
    run_cell(cell, Steps(Registry(plugins), None, progress=lambda *progress: reports.append(progress)))
    names = list(dict.fromkeys(re.sub("^refining: .*, epoch", "refining, epoch", what) for what, _, _ in reports))
    assert names == [
        "reading images",
        "learning filters",
        "fitting a layer to the start",
        "refining, epoch",
        "extracting, image",
        "training the classifier",
    ]
    assert ("extracting, image", 36, 36) in reports
    assert all(0 <= done <= total for _, done, total in reports)


def test_refinement_changes_the_network_and_reports_what_it_did(tiny):
    cells = {cell.regime.name: cell for cell in plan([tiny], draws=1)}
    steps = Steps(Registry([tiny]), None)
    plain, refined = run_cell(cells["R"], steps), run_cell(cells["R+"], steps)
    assert "refinement" not in plain.report
    report = refined.report["refinement"]
    assert 0 <= report["best_epoch"] <= report["epochs"]
    assert 0 <= report["validation_before"] <= report["validation_after"] <= 100
    assert (plain.seconds.refine, refined.seconds.refine > 0) == (0, True)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("labels, (", "labels[1:], (", "has 36 images but 35 labels"),
        ("labels, (", "labels + 1, (", "has labels outside its 3 classes"),
        ("labels, (", "labels - 1, (", "has labels outside its 3 classes"),
        (".astype(np.float32), labels", ".astype(np.float32)[:0], labels[:0]", "holds no images"),
        (
            "(patterns[labels]",
            "(np.nan * patterns[labels]",
            "data set tiny: none of the 36 images can be used; the first: image 0 holds values that are not finite",
        ),
        (
            "generator = np",
            "raise OSError('gone')\n        generator = np",
            "data set tiny cannot be read: OSError: gone",
        ),
        ("labels, (", "labels + 0.5, (", "data set tiny has labels that are not integers"),
        ('"c"))', '"c"), names=["one"])', "data set tiny has 36 images but 1 names of images"),
    ],
)
def test_a_data_set_that_breaks_its_contract_is_an_error_that_names_it(compare_tiny, tiny, home, old, new, message):
    assert tiny.read_text().count(old) == 1
    tiny.write_text(tiny.read_text().replace(old, new))
    ran = compare_tiny("--quiet")
    assert ran.code == 2
    assert ran.err.startswith("featbench: error: ")
    assert ran.err.count("\n") == 1
    assert message in ran.err
    assert not (home / "results").exists()


def test_steps_say_which_data_set_is_damaged(tiny):
    tiny.write_text(tiny.read_text().replace("labels, (", "labels[1:], ("))
    steps = Steps(Registry([tiny]), None)
    with pytest.raises(DataError, match="data set tiny has 36 images but 35 labels"):
        steps.load("tiny", Preprocessing())


def test_the_data_is_loaded_once_for_all_cells(tiny, log):
    steps = Steps(Registry([tiny]), None)
    cells = plan([tiny])
    loads = log.count("load")
    for cell in cells:
        steps.load(cell.dataset, cell.preprocessing)
    assert log.count("load") == loads + 1
    steps.load("tiny", Preprocessing(size=5))
    assert log.count("load") == loads + 2


# Features that are read in blocks.


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("protocol", ["tiny", "own-test"])
def test_features_read_in_blocks_give_the_same_predictions(
    tiny, own_test, counted, tmp_path, monkeypatch, protocol, stored
):
    plugins = [tiny, own_test, counted]

    def outcomes(home):
        bench = Workbench(plugins=plugins, data_dir=tmp_path, home=home)
        steps = bench.steps if stored else Steps(bench.registry, tmp_path)
        request = Request(protocol, device="cpu", draws=1, classifiers=["nearest", "logistic"])
        return {str(cell): run_cell(cell, steps) for cell in bench.plan(request) if not cell.skip}

    whole = outcomes(tmp_path / "whole")
    seen = []
    original = Rows.blocks

    def watched(rows):
        for block in original(rows):
            seen.append(len(block))
            yield block

    monkeypatch.setattr("featbench.features.rows.BLOCK_VALUES", 40)
    monkeypatch.setattr("featbench.features.extraction.BLOCK_IMAGES", 5)
    monkeypatch.setattr(Rows, "blocks", watched)
    parts = outcomes(tmp_path / "parts")
    assert len(whole) > 5
    assert max(seen) <= 40
    assert sum(seen) == len(parts) * 24
    assert len(seen) > 3 * len(parts)
    assert parts.keys() == whole.keys()
    for name, outcome in parts.items():
        assert np.array_equal(outcome.predictions, whole[name].predictions), name
        assert outcome.score == whole[name].score


@settings(derandomize=True, deadline=None, database=None, max_examples=50)
@given(st.data())
def test_blocks_of_rows_are_the_rows_in_order(data):
    n, d = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 5))
    array = np.arange(n * d, dtype=np.float32).reshape(n, d)
    indices = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=15)))
    rows, limit = Rows(array, indices, (d, 1, 1)), data.draw(st.integers(1, 30))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("featbench.features.rows.BLOCK_VALUES", limit)
        blocks = list(rows.blocks())
    assert np.array_equal(np.concatenate(blocks), array[indices])
    assert np.array_equal(rows.read(), array[indices])
    assert all(len(block) == 1 or block.size <= limit for block in blocks)
    assert len(rows) == len(indices)


def test_features_beyond_half_precision_are_kept_in_single_precision_with_and_without_a_store(tiny, write_learner):
    plugin = write_learner("huge", "return featbench.Filters(weight, bias=0 * weight[:, 0, 0, 0] + 1e6)", "random")
    encoder = """
    def encoder(self, filters, table):
        from featbench.stages.encoders import FilterBank
        return FilterBank(filters, table)

@featbench.hookimpl
"""
    plugin.write_text(plugin.read_text().replace("\n@featbench.hookimpl\n", encoder))
    bench = Workbench(plugins=[tiny, plugin])
    cell = plan([tiny, plugin], features=["huge"], regimes=["R"], draws=1)[-1]
    for steps in (Steps(bench.registry, None), bench.steps, bench.steps):
        images, maps = steps.load(cell.dataset, cell.preprocessing)
        split = steps.split(cell, images)
        features, _ = steps.extract(cell, split, steps.learn(cell, split, maps)[0], maps)
        assert features.test.array.dtype == np.float32
        assert features.test.array.shape == (36, 16)
        assert float(features.test.read().min()) > 9e5
    (path,) = (bench.store.home / "artifacts/features").glob("*.npy")
    assert np.load(path).dtype == np.float32


def test_features_of_a_few_numbers_are_kept_in_half_precision(tiny):
    bench = Workbench(plugins=[tiny])
    cell = plan([tiny], regimes=["R"], draws=1)[-1]
    run_cell(cell, bench.steps)
    run_cell(dataclasses.replace(cell, draw=1), bench.steps)
    (path,) = (bench.store.home / "artifacts/features").glob("*.npy")
    assert (np.load(path).dtype, np.load(path).shape) == (np.float16, (36, 4, 2, 2))


def test_features_lie_in_the_store_as_the_maps_that_they_are(tiny):
    bench = Workbench(plugins=[tiny])
    cell = plan([tiny], regimes=["R"], draws=1)[-1]
    images, maps = bench.steps.load(cell.dataset, cell.preprocessing)
    split = bench.steps.split(cell, images)
    network, _ = bench.steps.learn(cell, split, maps)
    expected = network(maps[:]).detach().numpy()
    for steps in (Steps(bench.registry, None), bench.steps, bench.steps):
        features, _ = steps.extract(cell, split, network, maps)
        assert features.train.maps == (4, 2, 2)
        np.testing.assert_allclose(features.train.array.reshape(36, 4, 2, 2), expected, rtol=1e-3, atol=1e-4)
        (block,) = features.test.to_local_maps().blocks()
        of_first = expected[split.test[0]].reshape(4, 4).T
        np.testing.assert_allclose(block.vectors[:4], of_first, rtol=1e-3, atol=1e-4)


# Test images of which some are tested.


@pytest.mark.parametrize("protocol", ["tiny", "own-test"])
def test_at_most_so_many_test_images_are_predicted(tiny, own_test, counted, tmp_path, protocol):
    plugins = [tiny, own_test, counted]
    bench = Workbench(plugins=plugins, data_dir=tmp_path)
    requests = {
        count: Request(protocol, device="cpu", features=["random"], regimes=["R"], draws=1, test_per_class=count)
        for count in (None, 3, 100)
    }
    outcomes = {}
    for count, request in requests.items():
        cell = bench.plan(request)[-1]
        outcomes[count] = run_cell(cell, bench.steps)
        images, _ = bench.steps.load(cell.dataset, cell.preprocessing)
        split = bench.steps.split(cell, images)
        assert len(outcomes[count].predictions) == len(split.test) == (9 if count == 3 else 24)
    images, _ = bench.steps.load(protocol, Preprocessing())
    whole, some = (bench.steps.split(bench.plan(requests[count])[-1], images).test for count in (None, 3))
    predicted = dict(zip(whole, outcomes[None].predictions, strict=True))
    assert [predicted[index] for index in some] == outcomes[3].predictions.tolist()
    assert outcomes[100].score == outcomes[None].score


# Prepared images in the store.


def test_prepared_images_come_back_from_the_store_as_they_were(own_test, tmp_path, log):
    bench = Workbench(plugins=[own_test], data_dir=tmp_path)
    fresh = Steps(bench.registry, tmp_path).find_images("own-test", Preprocessing())
    bench.steps.find_images("own-test", Preprocessing())
    again = Workbench(plugins=[own_test], data_dir=tmp_path).steps.find_images("own-test", Preprocessing())
    assert isinstance(again.pixels.flat, np.memmap)
    for name in ("labels", "test"):
        assert np.array_equal(getattr(again, name), getattr(fresh, name))
        assert getattr(again, name).dtype == getattr(fresh, name).dtype
    assert again.classes == fresh.classes
    assert again.pixels.flat.dtype == fresh.pixels.flat.dtype
    assert all(np.array_equal(one, other) for one, other in zip(again.pixels, fresh.pixels, strict=True))


def test_protocols_of_one_size_share_the_prepared_images(tiny, log, home):
    steps = Workbench(plugins=[tiny]).steps
    for preprocessing in (Preprocessing(), Preprocessing(standardise=False), Preprocessing(pad=True)):
        Workbench(plugins=[tiny]).steps.load("tiny", preprocessing)
        steps.survey("tiny", preprocessing)
    assert log.count("load") == 1
    assert len(list((home / "artifacts/images").glob("*.npy"))) == 1
    steps.load("tiny", Preprocessing(size=4))
    assert log.count("load") == 2


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_prepared_images_that_are_damaged_are_prepared_again(tiny, log, home, kind):
    images, _ = Workbench(plugins=[tiny]).steps.load("tiny", Preprocessing())
    (path,) = [path for path in (home / "artifacts" / kind).iterdir() if path.suffix != ".json"]
    path.write_bytes(path.read_bytes()[:-1])
    again, _ = Workbench(plugins=[tiny]).steps.load("tiny", Preprocessing())
    assert log.count("load") == 2
    assert np.array_equal(again.labels, images.labels)
    assert all(np.array_equal(one, other) for one, other in zip(again.pixels, images.pixels, strict=True))


# Several values of a parameter: validation decides.

JUDGE = '''
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
import featbench

class _Means(featbench.Predictor):
    def __init__(self, means, report):
        self.means, self.report = means, report
    def predict(self, features):
        return ((features[:, None].astype(np.float64) - self.means) ** 2).sum(axis=2).argmin(axis=1)

@dataclass(frozen=True)
class Judge(featbench.Classifier):
    """Nearest class mean that calls large, small, or all features the best."""
    name: ClassVar[str] = "judge"
    prefer: str = "large"
    def fit(self, features, labels, validation, classes, seed):
        size = float(np.abs(features).mean(dtype=np.float64))
        accuracy = {"large": size, "small": -size, "any": 50.0}[self.prefer]
        means = np.stack([features[labels == k].astype(np.float64).mean(axis=0) for k in range(classes)])
        return _Means(means, {"validation_accuracy": accuracy, "size": size})

@featbench.hookimpl
def featbench_classifiers():
    return [Judge()]
'''


@pytest.fixture
def judged(tiny, counted, write_plugin):
    """Plugins with a learner of one parameter, and a classifier that says which of its values is best."""
    return [tiny, counted, write_plugin("judge", JUDGE)]


def result_hash(bench, cell):
    return bench.keys.for_cell(cell).result.hash


def one_cell(plugins, learner, classifier="judge", regime="U", **request):
    named = {"features": [learner], "classifiers": [classifier], "regimes": [regime], "draws": 1, **request}
    return plan(plugins, **named)[-1]


@pytest.mark.parametrize("regime", ["U", "U+"])
@pytest.mark.parametrize(
    ("prefer", "best"), [("large", "counted(scale=3.0)"), ("small", "counted(scale=0.1)"), ("any", "counted")]
)
@pytest.mark.parametrize("stored", [False, True])
def test_the_value_with_the_best_validation_accuracy_gives_the_result(judged, prefer, best, regime, stored):
    steps = Workbench(plugins=judged).steps if stored else Steps(Registry(judged), None)
    classifier = f"judge(prefer={prefer})"
    open_cell = one_cell(judged, "counted(scale=1|3|0.1)", classifier, regime)
    assert str(open_cell.learner) == "counted(scale=1.0|3.0|0.1)"
    found = run_cell(open_cell, steps)
    # Of equals the first, which here is the default.
    alone = run_cell(one_cell(judged, best, classifier, regime), steps)
    named = "counted(scale=1.0)" if best == "counted" else best
    assert found.report == {**alone.report, "learner": named}
    assert "learner" not in alone.report
    assert ("refinement" in found.report) is (regime == "U+")
    assert found.score == alone.score
    assert np.array_equal(found.predictions, alone.predictions)


def test_all_values_that_were_tried_cost_their_seconds(judged):
    steps = Workbench(plugins=judged).steps
    values = [run_cell(one_cell(judged, f"counted(scale={scale})", regime="U+"), steps) for scale in (2, 3, 0.1)]
    found = run_cell(one_cell(judged, "counted(scale=2|3|0.1)", regime="U+"), steps)
    for part in ("learn", "refine", "extract"):
        # Those of the first computation, which the store keeps.
        assert getattr(found.seconds, part) == pytest.approx(sum(getattr(one.seconds, part) for one in values))
    assert found.seconds.classify > 0


def test_the_logistic_classifier_decides_by_its_accuracy_on_validation_images(tiny, counted):
    steps, scales = Steps(Registry([tiny, counted]), None), (0.01, 0.3, 3)
    alone = [
        run_cell(one_cell([tiny, counted], f"counted(scale={scale})", "logistic", train_per_class=8), steps)
        for scale in scales
    ]
    accuracies = [one.report["validation_accuracy"] for one in alone]
    best = alone[accuracies.index(max(accuracies))]
    texts = "|".join(map(str, scales))
    found = run_cell(one_cell([tiny, counted], f"counted(scale={texts})", "logistic", train_per_class=8), steps)
    assert len(set(accuracies)) > 1
    assert found.report["validation_accuracy"] == max(accuracies)
    assert found.score == best.score
    assert np.array_equal(found.predictions, best.predictions)


@pytest.mark.parametrize("classifier", ["nearest", "logistic(strength=1.0)"])
def test_any_classifier_decides_by_its_accuracy_on_validation_images(tiny, counted, classifier):
    steps, scales = Steps(Registry([tiny, counted]), None), (0.01, 0.3, 3.0)
    accuracies, alone = {}, {}
    for scale in scales:
        cell = one_cell([tiny, counted], f"counted(scale={scale})", classifier, train_per_class=8)
        alone[scale] = run_cell(cell, steps)
        accuracies[scale] = accuracy_on_held_out_images(cell, steps)
        assert "validation_accuracy" not in alone[scale].report
    best = max(scales, key=accuracies.get)
    texts = "|".join(map(str, scales))
    found = run_cell(one_cell([tiny, counted], f"counted(scale={texts})", classifier, train_per_class=8), steps)
    assert len(set(accuracies.values())) > 1
    assert found.report["validation_accuracy"] == accuracies[best]
    assert found.report["learner"] == f"counted(scale={best})"
    assert found.score == alone[best].score
    assert np.array_equal(found.predictions, alone[best].predictions)


def accuracy_on_held_out_images(cell, steps):
    """Train the cell's classifier on the images that do not validate, and count what it gets right on the others."""
    images, maps = steps.load(cell.dataset, cell.preprocessing)
    split = steps.split(cell, images)
    features, _ = steps.extract(cell, split, steps.learn(cell, split, maps)[0], maps)
    rows, labels = features.train.read(), images.labels[split.train]
    seen = ~split.validation
    classifier, nothing = steps.registry.classifier(cell.classifier), np.zeros(seen.sum(), dtype=bool)
    predictor = classifier.fit(rows[seen], labels[seen], nothing, 3, 0)
    return 100 * float((predictor.predict(rows[~seen]) == labels[~seen]).mean())


def test_cells_with_several_values_have_results_of_their_own(judged):
    bench = Workbench(plugins=judged)
    texts = ["counted", "counted(scale=2)", "counted(scale=1|2)", "counted(scale=1|2|3)"]
    assert len({result_hash(bench, one_cell(judged, text)) for text in texts}) == 4
    one, other = (result_hash(bench, one_cell(judged, f"counted(scale={text})")) for text in ("1|2", "1.0|2|1"))
    assert one == other


@pytest.mark.parametrize("learner", ["counted", "counted(scale=2)", "counted(scale=1|2)"])
def test_a_cell_comes_back_from_its_description(judged, learner):
    cell = one_cell(judged, learner)
    described = json.loads(json.dumps(cell.describe()))
    restored = Cell.restore(described)
    assert restored == cell
    assert restored.learner.alternatives() == cell.learner.alternatives()
    assert hash(restored.learner) == hash(cell.learner)


def test_several_values_end_to_end(compare_tiny, home):
    features = "psd(lam=0.5|2,updates=20,patches=500)"
    options = ("--features", features, "--classifiers", "logistic", "--regimes", "U", "--draws", "1")
    first = compare_tiny(*options)
    assert first.code == 0
    row = first.row("psd(lam=0.5|2.0,patches=500,updates=20)")
    assert (row["status"], row["n"]) == ("ok", 1)
    alone = compare_tiny(
        *options, "--features", "psd(lam=0.5,updates=20,patches=500),psd(lam=2,updates=20,patches=500)"
    )
    scores = {row["learner"]: row["scores"] for row in alone.rows}
    assert row["scores"] in [scores[f"psd(lam={lam},patches=500,updates=20)"] for lam in ("0.5", "2.0")]
    filters = list((home / "artifacts/filters").glob("*.safetensors"))
    assert len(filters) == 2
    second = compare_tiny(*options)
    assert second.out == first.out
    assert "nothing to compute: all 3 cells were in the store" in second.err


def test_several_values_on_the_digits(run):
    options = ("--features", "psd(lam=0.5|2,updates=20,patches=500)", "--draws", "1", "--regimes", "U")
    ran = run("compare", "--no-track", "--quiet", "--format", "json", *options)
    assert ran.code == 0
    row = ran.row("psd(lam=0.5|2.0,patches=500,updates=20)")
    assert row["status"] == "ok"
    assert row["mean"] > 50
    again = run("compare", "--no-track", "--format", "json", *options)
    assert again.out == ran.out
    assert "nothing to compute: all 3 cells were in the store" in again.err


def test_a_value_that_cannot_fill_the_architecture_is_skipped_with_its_reason(tiny):
    cell = one_cell([tiny], "lista(rank=2|99)", "logistic")
    assert cell.skip == "lista in stage 1: rank 99 is more than S [4, 4] has"


# Unlabelled images besides the training images.

SAVING = """
        log(f"images{len(patches.maps)}")
        log("sizes" + str(sorted(patches.maps.images.sizes)).replace(" ", ""))
        np.save(os.environ["FEATBENCH_TEST_LOG"] + ".npy", patches.sample(300).numpy())
        return patches.sample(bank.filters)
"""


def windows(image, size=3):
    return {
        image[r : r + size, c : c + size].numpy().tobytes() for r, c in np.ndindex(*(np.array(image.shape) - size + 1))
    }


def test_patches_come_from_training_images_and_from_unlabelled_ones(tiny, write_learner, unlabelled, log):
    plugins = [tiny, write_learner("counted", SAVING)]
    cell = one_cell(plugins, "counted", "nearest", unlabelled=f"training+{unlabelled}")
    steps = Steps(Registry(plugins), None)
    assert len(run_cell(cell, steps).predictions) == 24
    assert (log.count("images17"), log.count("sizes[(6,6),(9,7)]")) == (1, 1)
    images, maps = steps.load(cell.dataset, cell.preprocessing)
    training = maps[steps.split(cell, images).train]
    sources = [training, steps.load_pool(str(unlabelled), cell.preprocessing)[:]]
    known = [set().union(*(windows(image[0]) for image in source)) for source in sources]
    seen = [patch.tobytes() for patch in np.load(f"{log.path}.npy")[:, 0]]
    from_training, from_pool = (sum(patch in those for patch in seen) for those in known)
    assert from_training + from_pool == len(seen) == 300
    # Twelve images of seventeen.
    assert 0.55 < from_training / 300 < 0.85


def test_training_images_and_unlabelled_ones_make_a_key_and_a_result_of_their_own(tiny, write_learner, unlabelled):
    plugins = [tiny, write_learner("counted", SAVING)]
    bench = Workbench(plugins=plugins)
    cells = {
        name: one_cell(plugins, "counted", "nearest", unlabelled=name)
        for name in (None, str(unlabelled), f"training+{unlabelled}")
    }
    assert len({result_hash(bench, cell) for cell in cells.values()}) == 3
    for cell in cells.values():
        run_cell(cell, bench.steps)
    weights = [bench.artifacts.read_first_filters(cell) for cell in cells.values()]
    assert all(not np.array_equal(weights[a], weights[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    joined = cells[f"training+{unlabelled}"]
    key = result_hash(bench, joined)
    assert key != result_hash(bench, dataclasses.replace(joined, draw=1))
    next(unlabelled.iterdir()).unlink()
    assert key != result_hash(Workbench(plugins=plugins), joined)
    assert Cell.restore(json.loads(json.dumps(joined.describe()))) == joined


def test_draws_do_not_share_filters_that_saw_their_training_images(compare_tiny, write_learner, unlabelled, log):
    options = ("--features", "counted", "--regimes", "U", "--unlabelled", f"training+{unlabelled}", "--draws", "3")
    ran = compare_tiny(*options, plugins=[write_learner("counted")])
    assert ran.code == 0
    assert log.count("counted") == 3
    assert "nothing to compute" in compare_tiny(*options, plugins=[write_learner("counted")]).err


def test_a_missing_folder_besides_the_training_images_is_named(compare_tiny, write_learner):
    ran = compare_tiny("--features", "counted", "--unlabelled", "training+nowhere", plugins=[write_learner("counted")])
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.endswith("featbench: error: there is no folder of images nowhere\n")


def test_training_images_joined_with_nothing_are_refused(compare_tiny, write_learner):
    ran = compare_tiny("--features", "counted", "--unlabelled", "training+", plugins=[write_learner("counted")])
    assert (ran.code, ran.out) == (2, "")
    assert "--unlabelled training+ names no images" in ran.err


def test_joined_maps_are_those_of_their_parts_one_after_another():
    generator = np.random.default_rng(0)
    parts = [make_maps(generator.random((count, 5, 6)), Preprocessing()) for count in (3, 1, 4)]
    joined, everything = JoinedMaps(*parts), torch.cat([part[:] for part in parts])
    assert len(joined) == 8
    assert joined.sizes == {(5, 6)}
    for which in ([0], [3], [7], [0, 1, 2], [2, 3, 4], [1, 6, 7], [3, 3, 5], list(range(8))):
        torch.testing.assert_close(joined[np.array(which)], everything[which])
    other = make_maps(generator.random((2, 4, 4)), Preprocessing())
    assert JoinedMaps(*parts, other).sizes == {(5, 6), (4, 4)}
    assert JoinedMaps(*parts, other)[np.array([8, 9])].shape == (2, 1, 4, 4)
