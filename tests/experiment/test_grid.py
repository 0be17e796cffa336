import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import featbench
from featbench.data.maps import Preprocessing
from featbench.errors import (
    ArchitectureError,
    DataError,
    DeviceError,
    PluginError,
    SplitError,
    UnknownNameError,
    UsageError,
)
from featbench.evaluation.protocol import Baseline
from featbench.evaluation.split import Census, Survey
from featbench.experiment.baselines import is_baseline
from featbench.experiment.grid import enumerate_cells
from featbench.experiment.request import Request, parse_choice, split_list
from featbench.parameters import Choice
from featbench.registry import Registry

DIGITS = Census(tuple("0123456789"), (178, 182, 177, 183, 181, 182, 181, 179, 174, 180), (0,) * 10, has_test=False)

MNIST = Census(("a", "b"), (150, 140), (20, 20), has_test=True)

FITTING = {"random": {"R", "R+"}, "psd": {"U", "U+"}, "gabor": {"fixed", "fixed+"}}
"""Which regimes make sense for a learner, by Jarrett et al. 2009."""

REGISTRY = Registry()


def enumerate_for(request, census=DIGITS, shape=(1, 8, 8), one_size=True, registry=REGISTRY):
    """Enumerate cells on a data set of this (smallest) shape and census; nothing is loaded."""
    return enumerate_cells(request, registry, lambda _dataset, _preprocessing: Survey(shape, one_size, census))


def pairs(cells):
    """Return learner, regime and whether it is run, once for each row."""
    return list(dict.fromkeys((str(cell.learner), cell.regime.name, not cell.skip) for cell in cells))


BASELINES = [("chance", "fixed", True), ("raw-pixels", "fixed", True)]


# The default grid.


def test_the_default_grid_of_the_digits():
    cells = enumerate_for(Request())
    assert pairs(cells) == [
        *BASELINES,
        ("random", "R", True),
        ("random", "R+", True),
        ("gabor", "fixed", True),
        ("psd", "U", True),
        ("psd", "U+", True),
    ]
    assert len(cells) == 7 * 5
    assert [cell.draw for cell in cells[:5]] == [0, 1, 2, 3, 4]
    assert {cell.classifier for cell in cells if cell.learner.name == "chance"} == {"guess"}
    assert {cell.classifier for cell in cells if cell.learner.name != "chance"} == {"logistic"}


def test_a_cell_holds_what_its_protocol_declares():
    protocol = REGISTRY.protocol("digits")
    for cell in enumerate_for(Request(device="cpu")):
        assert (cell.protocol, cell.dataset, cell.metric) == ("digits", "digits", "accuracy")
        assert (cell.train_per_class, cell.test, cell.seed, cell.device) == (10, "rest", 0, "cpu")
        assert (cell.preprocessing, cell.validation_fraction) == (Preprocessing(), protocol.validation_fraction)
        assert (cell.unlabelled, cell.skip) == (None, "")
        # Baselines are whole networks: no architecture is theirs.
        expected = "" if cell.learner.name in ("chance", "raw-pixels") else "32F3-Rabs-N3-PA2/2"
        assert cell.architecture == expected


def test_a_request_overrides_its_protocol(tmp_path):
    (tmp_path / "a.png").touch()
    request = Request(
        dataset="mnist",
        features=["psd(lam=0.5)"],
        regimes=["U"],
        classifiers=["guess"],
        stages=" 4F3-Rabs - PA2/2",
        train_per_class="3",
        draws=2,
        seed=7,
        device="cpu",
        unlabelled=str(tmp_path),
    )
    cells = [cell for cell in enumerate_for(request) if cell.learner.name == "psd"]
    assert [cell.draw for cell in cells] == [0, 1]
    for cell in cells:
        assert (cell.dataset, cell.architecture, cell.classifier) == ("mnist", "4F3-Rabs-PA2/2", "guess")
        assert (cell.train_per_class, cell.seed, cell.unlabelled) == (3, 7, str(tmp_path))
        assert cell.learner == Choice("psd", (("lam", 0.5),))


def test_only_filters_learned_without_labels_depend_on_the_unlabelled_images(tmp_path):
    (tmp_path / "a.png").touch()
    seen = {cell.regime.name: cell.unlabelled for cell in enumerate_for(Request(unlabelled=str(tmp_path)))}
    assert seen == {"fixed": None, "R": None, "R+": None, "U": str(tmp_path), "U+": str(tmp_path)}


def test_raw_pixels_are_there_for_every_classifier_and_chance_once():
    cells = enumerate_for(Request(classifiers=["logistic", "guess"], draws=1))
    rows = [(str(cell.learner), cell.classifier) for cell in cells]
    assert rows.count(("raw-pixels", "logistic")) == rows.count(("raw-pixels", "guess")) == 1
    assert [row for row in rows if row[0] == "chance"] == [("chance", "guess")]


def test_naming_a_baseline_gives_its_rows_alone():
    assert pairs(enumerate_for(Request(features=["raw-pixels", "chance"]))) == BASELINES


# The baselines that a protocol declares.


def with_baselines(*baselines, **changes):
    """Return a registry whose protocol `judged` is `digits` with other baselines."""
    protocol = dataclasses.replace(REGISTRY.protocol("digits"), name="judged", baselines=baselines, **changes)

    class Plugin:
        @featbench.hookimpl
        def featbench_protocols(self):
            return [protocol]

    return Registry([Plugin()], strict=True)


def rows_of(registry, one_size=True, shape=(1, 16, 16), **request):
    """Return learner, regime, classifier and whether it is run, once for each row of the protocol `judged`."""
    cells = enumerate_for(Request("judged", draws=1, **request), registry=registry, one_size=one_size, shape=shape)
    return [(str(cell.learner), cell.regime.name, cell.classifier, not cell.skip) for cell in cells]


GABOR = ("gabor", "fixed", "logistic", True)


def test_protocols_declare_chance_and_raw_pixels_if_they_say_nothing():
    assert REGISTRY.protocol("digits").baselines == (Baseline("chance", "guess"), Baseline("raw-pixels"))
    expected = [("chance", "fixed", "guess", True), ("raw-pixels", "fixed", "logistic", True), GABOR]
    declared = REGISTRY.protocol("digits").baselines
    assert rows_of(with_baselines(*declared), features=["gabor"], regimes=["fixed"]) == expected


def test_a_protocol_without_baselines_has_the_rows_that_were_asked_for_alone():
    assert rows_of(with_baselines(), features=["gabor"], regimes=["fixed"]) == [GABOR]
    # What is a baseline elsewhere is here a learner like any other.
    rows = rows_of(with_baselines(), features=["raw-pixels", "chance"])
    assert rows == [("raw-pixels", "fixed", "logistic", True), ("chance", "fixed", "logistic", True)]


def test_any_learner_can_be_a_baseline_under_any_regime_and_classifier():
    baselines = (Baseline("random(scale=0.5)", regime="R"), Baseline("sift(size=8)", "linear-svm( C=1 )"))
    rows = rows_of(with_baselines(*baselines), features=["gabor"], regimes=["fixed"], classifiers=["knn", "logistic"])
    assert rows == [
        ("random(scale=0.5)", "R", "knn", True),
        ("random(scale=0.5)", "R", "logistic", True),
        ("sift(size=8)", "fixed", "linear-svm", True),
        ("gabor", "fixed", "knn", True),
        ("gabor", "fixed", "logistic", True),
    ]


def test_a_baseline_of_rows_goes_with_another_classifier_where_all_take_local_vectors():
    registry = with_baselines(Baseline("raw-pixels", otherwise="knn"), Baseline("chance", "guess"))
    rows = rows_of(registry, features=["gabor"], regimes=["fixed"], classifiers=["pmk-svm"])
    assert rows[:2] == [("raw-pixels", "fixed", "knn", True), ("chance", "fixed", "guess", True)]


def test_a_baseline_that_fills_an_architecture_has_it_and_needs_it_to_fit():
    registry = with_baselines(Baseline("random", regime="R"))
    cells = enumerate_for(Request("judged", features=["raw-pixels"], draws=1), registry=registry, shape=(1, 16, 16))
    assert [cell.architecture for cell in cells][:1] == ["32F3-Rabs-N3-PA2/2"]
    with pytest.raises(ArchitectureError):
        enumerate_for(Request("judged", features=["raw-pixels"], draws=1), registry=registry, shape=(1, 2, 2))


@pytest.mark.parametrize(
    ("baseline", "reason"),
    [
        (Baseline("random"), "random is not designed by hand: R is its regime"),
        (Baseline("raw-pixels", regime="fixed+"), "raw-pixels is not differentiable, so labels cannot refine it"),
        (Baseline("raw-pixels", "pmk-svm"), ""),
    ],
)
def test_a_baseline_that_makes_no_sense_is_shown_with_its_reason(baseline, reason):
    request = Request("judged", features=["gabor"], regimes=["fixed"], draws=1)
    first = enumerate_for(request, registry=with_baselines(baseline), shape=(1, 16, 16))[0]
    assert first.skip == reason


def test_naming_a_baseline_adds_the_regimes_it_has_no_row_for():
    registry = with_baselines(Baseline("random", "knn", regime="R"))
    baseline = ("random", "R", "knn", True)
    assert rows_of(registry, features=["random"]) == [baseline, ("random", "R+", "logistic", True)]
    assert rows_of(registry, features=["random"], regimes=["R"]) == [baseline]
    assert rows_of(registry, features=["random"], regimes=["R+"]) == [baseline, ("random", "R+", "logistic", True)]
    assert rows_of(registry, features=["random"], regimes=["U"]) == [baseline]
    # With other parameters it is another learner.
    other = [("random(scale=2.0)", regime, "logistic", True) for regime in ("R", "R+")]
    assert rows_of(registry, features=["random(scale=2)"]) == [baseline, *other]


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        (Baseline("rndom"), "unknown learner 'rndom': did you mean 'random'"),
        (Baseline("random", "gues"), "unknown classifier 'gues': did you mean 'guess'"),
        (Baseline("random(scale=x)", regime="R"), "random: parameter scale takes a float, not 'x'"),
    ],
)
def test_a_baseline_that_nobody_knows_is_refused(baseline, message):
    with pytest.raises(UsageError, match=message):
        rows_of(with_baselines(baseline), features=["gabor"])


def test_a_baseline_under_a_regime_that_nobody_knows_is_refused_when_its_protocol_registers():
    with pytest.raises(PluginError, match="protocol judged: unknown regime 'r': did you mean 'R'"):
        with_baselines(Baseline("random", regime="r"))


def test_a_cell_is_that_of_a_baseline_by_its_learner_and_its_regime():
    registry = with_baselines(Baseline("random", regime="R"), Baseline("chance", "guess"))
    request = Request("judged", features=["random", "raw-pixels", "random(scale=2)"], draws=1)
    cells = enumerate_for(request, registry=registry)
    found = {(str(cell.learner), cell.regime.name): is_baseline(cell, registry) for cell in cells}
    assert found == {
        ("random", "R"): True,
        ("chance", "fixed"): True,
        ("random", "R+"): False,
        ("raw-pixels", "fixed"): False,
        ("random(scale=2.0)", "R"): False,
        ("random(scale=2.0)", "R+"): False,
    }


# Nothing that was named vanishes.


def test_an_explicit_product_keeps_what_makes_no_sense_with_its_reason():
    cells = enumerate_for(Request(features=["random", "psd"], regimes=["R", "U+"], draws=1))
    assert pairs(cells)[2:] == [
        ("random", "R", True),
        ("random", "U+", False),
        ("psd", "R", False),
        ("psd", "U+", True),
    ]
    reasons = {(cell.learner.name, cell.regime.name): cell.skip for cell in cells if cell.skip}
    assert reasons == {
        ("random", "U+"): "random has nothing to learn without labels: R is its regime",
        ("psd", "R"): "psd does not start from random filters: the learner 'random' is what R stands for",
    }


def test_a_learner_alone_gets_the_regimes_that_fit_it():
    assert pairs(enumerate_for(Request(features=["psd"])))[2:] == [("psd", "U", True), ("psd", "U+", True)]


def test_a_regime_alone_gets_the_learners_that_fit_it():
    assert pairs(enumerate_for(Request(regimes=["U"])))[2:] == [("psd", "U", True)]


def test_a_regime_that_nobody_serves_is_shown():
    found = pairs(enumerate_for(Request(protocol="digits", regimes=["R", "fixed+"])))[2:]
    assert ("gabor", "fixed+", True) in found
    found = pairs(enumerate_for(Request(protocol="mnist", regimes=["fixed"]), MNIST, (1, 28, 28)))[2:]
    assert found == [("random", "fixed", False), ("psd", "fixed", False)]


def test_a_learner_that_no_regime_of_the_protocol_serves_is_shown():
    cells = enumerate_for(Request(protocol="mnist", features=["gabor"]), MNIST, (1, 28, 28))
    assert pairs(cells)[2:] == [("gabor", name, False) for name in ("R", "U", "R+", "U+")]
    assert all(cell.skip for cell in cells if cell.learner.name == "gabor")


def test_a_learner_that_cannot_fill_a_bank_is_skipped_with_its_reason():
    stages = "8F3-Rabs-PM2 > 8F2-Rabs-PM2"
    cells = enumerate_for(Request(features=["gabor", "random"], stages=stages, draws=1))
    reasons = {cell.learner.name: cell.skip for cell in cells}
    reason = "gabor in stage 2: Gabor filters are designed for one map, and 8 come in: see gabor-templates"
    assert reasons["gabor"] == reason
    assert reasons["random"] == ""


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    features=st.none() | st.lists(st.sampled_from([*FITTING, "psd(updates=3)", "chance"]), min_size=1, max_size=4),
    regimes=st.none() | st.lists(st.sampled_from(["R", "U", "R+", "U+", "fixed", "fixed+"]), min_size=1, max_size=4),
)
def test_nothing_named_vanishes_and_nothing_comes_twice(features, regimes):
    cells = enumerate_for(Request(features=features, regimes=regimes, draws=1))
    found = [cell for cell in cells if cell.learner.name not in ("chance", "raw-pixels")]
    for cell in found:
        assert bool(cell.skip) == (cell.regime.name not in FITTING[cell.learner.name])
    assert len(set(cells)) == len(cells)
    named = {name for name in features or () if name != "chance"}
    if features is not None:
        assert {str(cell.learner) for cell in found} == named
    if regimes is not None and (features is None or named):
        assert {cell.regime.name for cell in found} == set(regimes)
    if features is not None and regimes is not None:
        assert len(found) == len(named) * len(set(regimes))
    if features is None or regimes is None:
        # What fits is never left out for what does not.
        fitting = [(name, regime) for name in FITTING for regime in FITTING[name]]
        for name, regime in fitting:
            asked = name in (features or FITTING) and regime in (regimes or ["R", "U", "R+", "U+", "fixed"])
            if asked:
                assert (name, regime, True) in pairs(found)


# Learners with parameters.


@pytest.mark.parametrize(
    "text, expected",
    [
        ("psd", {}),
        ("psd()", {}),
        ("psd(lam=0.5,updates=10)", {"lam": 0.5, "updates": 10}),
        (" psd( updates = 10 , lam = 5e-1 ) ", {"lam": 0.5, "updates": 10}),
        ("psd(lam=3)", {"lam": 3.0}),
        ("random(zero_mean=False)", {"zero_mean": False}),
        ("random(zero_mean=true)", {}),
        ("random(scale=1)", {}),
        ("random(distribution=normal,zero_mean=FALSE)", {"distribution": "normal", "zero_mean": False}),
    ],
)
def test_parameters_are_read_with_their_types(text, expected):
    choice = parse_choice(text, REGISTRY)
    found = dict(choice.parameters)
    assert choice.name == text.strip().partition("(")[0]
    assert found == expected
    assert {name: type(value) for name, value in found.items()} == {n: type(v) for n, v in expected.items()}


def test_one_choice_has_one_spelling():
    spellings = ["psd(updates=10,lam=3)", "psd(lam=3.0,updates=10)", "psd(lam=3e0, updates=10)"]
    assert {str(parse_choice(text, REGISTRY)) for text in spellings} == {"psd(lam=3.0,updates=10)"}
    cells = enumerate_for(Request(features=spellings, regimes=["U"], draws=1))
    assert pairs(cells)[2:] == [("psd(lam=3.0,updates=10)", "U", True)]


@pytest.mark.parametrize(
    "text",
    [
        "psd(lam=0.5,updates=10)",
        "random(scale=0.1)",
        "random(distribution=normal,zero_mean=False)",
        "gabor",
        "psd(lam=1e-07)",
    ],
)
def test_a_choice_is_read_as_it_is_printed(text):
    choice = parse_choice(text, REGISTRY)
    assert parse_choice(str(choice), REGISTRY) == choice
    assert str(choice) == text


@pytest.mark.parametrize(
    "text, message",
    [
        ("psd(lamb=1)", r"unknown parameter of psd 'lamb': did you mean 'lam'\?"),
        ("psd(update=1)", r"unknown parameter of psd 'update': did you mean 'updates'\?"),
        ("raw-pixels(x=1)", "unknown parameter of raw-pixels 'x'.*none"),
        ("psd(updates=0.5)", "psd: parameter updates takes an int, not 0.5"),
        ("psd(updates=many)", "psd: parameter updates takes an int, not 'many'"),
        ("psd(updates=true)", "psd: parameter updates takes an int, not True"),
        ("psd(lam=nan)", "psd: parameter lam takes a finite float, not nan"),
        ("psd(lam=inf)", "psd: parameter lam takes a finite float, not inf"),
        ("random(zero_mean=1)", "random: parameter zero_mean takes a bool, not 1"),
        ("psd(lam=-1)", "psd: lam > 0"),
        ("random(distribution=cauchy)", "random: distribution must be one of uniform, normal, not 'cauchy'"),
        ("psd(lam)", r"cannot read 'lam' in 'psd\(lam\)': write parameter=value"),
        ("psd(lam=1", r"cannot read 'psd\(lam=1': write NAME or NAME\(parameter=value"),
        ("psd)", r"cannot read 'psd\)'"),
        ("psd psd", "cannot read 'psd psd'"),
        ("(lam=1)", r"cannot read '\(lam=1\)'"),
        ("", "cannot read ''"),
        ("psdd", "unknown learner 'psdd': did you mean 'psd'"),
    ],
)
def test_a_learner_that_cannot_be_read_is_an_error_that_says_why(text, message):
    with pytest.raises(UsageError, match=message):
        parse_choice(text, REGISTRY)


@pytest.mark.parametrize(
    "text, parts",
    [
        ("random,psd", ["random", "psd"]),
        ("random, psd(lam=0.5,updates=10) ,gabor", ["random", "psd(lam=0.5,updates=10)", "gabor"]),
        ("psd(lam=1),psd(lam=2)", ["psd(lam=1)", "psd(lam=2)"]),
        (",random,,", ["random"]),
        ("", []),
        (" , ", []),
    ],
)
def test_lists_are_split_outside_of_brackets(text, parts):
    assert split_list(text) == parts


# Mistakes are errors before anything is computed.


@pytest.mark.parametrize(
    "request_, error, message",
    [
        (Request(protocol="digit"), UnknownNameError, "unknown protocol 'digit': did you mean 'digits'"),
        (Request(dataset="mnst"), UnknownNameError, "unknown dataset 'mnst': did you mean 'mnist'"),
        (Request(features=["gabr"]), UnknownNameError, "unknown learner 'gabr': did you mean 'gabor'"),
        (Request(regimes=["U++"]), UnknownNameError, r"unknown regime 'U\+\+': did you mean 'U\+'"),
        (Request(regimes=["r+"]), UnknownNameError, r"unknown regime 'r\+': did you mean 'R\+'"),
        (Request(regimes=["fixd"]), UnknownNameError, "unknown regime 'fixd': did you mean 'fixed'"),
        (Request(classifiers=["logistik"]), UnknownNameError, "unknown classifier 'logistik': did you mean 'logistic'"),
        (Request(device="gpu"), DeviceError, "unknown device 'gpu': it is auto, cpu or cuda"),
        (Request(stages="32F3-Rab"), ArchitectureError, "Rab"),
        (Request(stages="32F9"), ArchitectureError, "8"),
        (Request(features=["chance"], stages="32F9"), ArchitectureError, "8"),
        (Request(regimes=["R"], unlabelled="nowhere"), DataError, "there is no folder of images nowhere"),
        (Request(train_per_class=1), UsageError, "--train-per-class must be at least 2"),
        (Request(train_per_class="0"), UsageError, "--train-per-class must be at least 2"),
        (Request(train_per_class="abc"), UsageError, "--train-per-class takes a number or 'all', not 'abc'"),
        (Request(test_per_class=0), UsageError, "--test-per-class must be at least 1"),
        (Request(test_per_class="-2"), UsageError, "--test-per-class must be at least 1"),
        (Request(test_per_class="few"), UsageError, "--test-per-class takes a number or 'all', not 'few'"),
        (Request(dataset="digits:here"), UsageError, "digits takes no argument: write digits, not digits:here"),
        (Request(dataset="folder:"), UsageError, "folder: needs a path, as in folder:photographs"),
        (Request(dataset="foldr:x"), UnknownNameError, "unknown dataset 'foldr': did you mean 'folder'"),
        (Request(unlabelled="digits"), DataError, "data set digits has no unlabelled images"),
        (Request(classifiers=["logistic(strngth=1)"]), UnknownNameError, "of logistic 'strngth': did you mean 'streng"),
        (Request(classifiers=["logistic(strength=-1)"]), UsageError, "logistic: strength must not be negative"),
        (Request(classifiers=["logistic(standardise=1)"]), UsageError, "parameter standardise takes a bool, not 1"),
        (Request(train_per_class="all"), SplitError, "leaves none to test on"),
        (Request(train_per_class=174), SplitError, "class '8' has 174 images, but 174 are asked for training and at"),
        (Request(draws=0), UsageError, "--draws must be at least 1, not 0"),
        (Request(draws=-3), UsageError, "--draws must be at least 1, not -3"),
        (Request(unlabelled="nowhere"), DataError, "there is no folder of images nowhere"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(request_, error, message):
    with pytest.raises(error, match=message):
        enumerate_for(request_)


def test_cuda_that_is_absent_is_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(DeviceError, match="CUDA was asked for, but torch finds no CUDA device: use --device cpu"):
        enumerate_for(Request(device="cuda"))
    assert {cell.device for cell in enumerate_for(Request(device="auto"))} == {"cpu"}


def test_a_learner_that_needs_a_gpu_is_skipped_without_one(monkeypatch, write_learner):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    path = write_learner("hungry", family="random")
    path.write_text(path.read_text().replace("scale: float", "needs_gpu: ClassVar[bool] = True\n    scale: float"))
    registry = Registry([path])
    request = Request(features=["hungry"], regimes=["R"], draws=1)
    cells = enumerate_for(request, registry=registry)
    assert [cell.skip for cell in cells][-1] == "hungry needs a GPU: use --device cuda"


def test_a_learner_without_gradients_is_not_refined(write_learner):
    path = write_learner("stiff", family="random")
    path.write_text(
        path.read_text().replace("scale: float", "differentiable: ClassVar[bool] = False\n    scale: float")
    )
    request = Request(features=["stiff"], regimes=["R", "R+"], draws=1)
    cells = enumerate_for(request, registry=Registry([path]))
    assert [cell.skip for cell in cells][-2:] == ["", "stiff is not differentiable, so labels cannot refine it"]


def test_a_supervised_learner_is_only_refined(write_learner):
    path = write_learner("net", family="supervised")
    request = Request(features=["net"], regimes=["R", "R+", "U+"], draws=1)
    cells = enumerate_for(request, registry=Registry([path]))
    skips = {cell.regime.name: cell.skip for cell in cells if cell.learner.name == "net"}
    assert skips["R"] == "net learns from labels alone: ask for R+"
    assert skips["R+"] == ""
    assert skips["U+"]


def test_regimes_of_two_stages_are_read_as_those_of_one():
    cells = enumerate_for(Request(features=["random", "psd"], regimes=["RR", "R+R+", "UU", "U+U+"], draws=1))
    assert {name for _, name, _ in pairs(cells)[2:]} == {"R", "R+", "U", "U+"}


# Training images.


def test_as_many_training_images_as_leave_one_to_test_on():
    cells = enumerate_for(Request(train_per_class=173))
    assert {cell.train_per_class for cell in cells} == {173}


def test_all_training_images_make_one_draw():
    cells = enumerate_for(Request(protocol="mnist", train_per_class="all"), MNIST, (1, 28, 28))
    assert {(cell.train_per_class, cell.draw) for cell in cells} == {(None, 0)}
    with pytest.raises(UsageError, match="all training images make one draw"):
        enumerate_for(Request(protocol="mnist", train_per_class="all", draws=2), MNIST, (1, 28, 28))


def test_the_test_images_of_a_data_set_do_not_train():
    enumerate_for(Request(protocol="mnist", train_per_class=120), MNIST, (1, 28, 28))
    with pytest.raises(SplitError, match="class 'b' has 120 images, but 121 are asked for training: "):
        enumerate_for(Request(protocol="mnist", train_per_class=121), MNIST, (1, 28, 28))


def test_a_protocol_with_a_fixed_test_split_needs_one():
    with pytest.raises(SplitError, match="own test images, but it has none"):
        enumerate_for(Request(protocol="mnist", dataset="digits"), DIGITS, (1, 28, 28))


def test_cells_are_plain_data_that_can_be_compared():
    one, other = enumerate_for(Request()), enumerate_for(Request())
    assert one == other
    assert len(set(one)) == len(one)
    assert dataclasses.replace(one[0], skip="why") == one[0]


# Test images.


@pytest.mark.parametrize(("asked", "expected"), [(None, None), ("all", None), (7, 7), ("7", 7)])
def test_at_most_so_many_test_images_of_each_class(asked, expected):
    assert {cell.test_per_class for cell in enumerate_for(Request(test_per_class=asked))} == {expected}


def test_all_test_images_override_what_the_protocol_declares(monkeypatch):
    protocol = dataclasses.replace(REGISTRY.protocol("digits"), test_per_class=9)
    monkeypatch.setattr(REGISTRY, "protocol", lambda _name: protocol)
    assert {cell.test_per_class for cell in enumerate_for(Request())} == {9}
    assert {cell.test_per_class for cell in enumerate_for(Request(test_per_class="all"))} == {None}


# Architectures by name.


def test_an_architecture_of_the_protocol_is_asked_for_by_its_name():
    protocol = REGISTRY.protocol("caltech101-30")
    census = Census(("a", "b"), (50, 60), (0, 0), has_test=False)
    for name, text in protocol.architectures.items():
        request = Request("caltech101-30", stages=name, features=["random"], draws=1)
        assert enumerate_for(request, census, (1, 143, 143))[-1].architecture == text
    request = Request("caltech101-30", stages="8F9-Rabs-PA10/5", features=["random"], draws=1)
    assert enumerate_for(request, census, (1, 143, 143))[-1].architecture == "8F9-Rabs-PA10/5"


def test_an_unknown_architecture_is_refused_with_the_names_there_are():
    with pytest.raises(ArchitectureError, match=r"caltech101-30 also knows by name: one:Rabs-N-PA, .*two:PA"):
        enumerate_for(Request("caltech101-30", stages="three:PA"))
    with pytest.raises(ArchitectureError) as caught:
        enumerate_for(Request(stages="one:PA"))
    assert "by name" not in str(caught.value)


# Classifiers with parameters.


def test_a_classifier_has_one_spelling():
    spellings = ["logistic(standardise=false,strength=1)", "logistic( strength=1.0, standardise=FALSE )"]
    cells = enumerate_for(Request(classifiers=[*spellings, "logistic(strength=0)"], features=["random"], draws=1))
    found = list(dict.fromkeys(cell.classifier for cell in cells if cell.learner.name == "random"))
    assert found == ["logistic(standardise=False,strength=1.0)", "logistic"]
    classifier = REGISTRY.classifier(found[0])
    assert {**classifier.parameters(), "standardise": False, "strength": 1.0} == classifier.parameters()


def test_alternatives_of_a_classifier_are_one_row_with_one_spelling():
    spellings = ["linear-svm(C=10|1)", "linear-svm( C=10.0|1.0 )", "linear-svm(C=1|10)", "linear-svm(C=1|1.0)"]
    cells = enumerate_for(Request(classifiers=spellings, features=["random"], regimes=["R"], draws=1))
    found = [cell.classifier for cell in cells if cell.learner.name == "random"]
    assert found == ["linear-svm(C=10.0|1.0)", "linear-svm(C=1.0|10.0)", "linear-svm"]
    assert [REGISTRY.classifier(str(one)).C for one in Choice.read(found[0]).alternatives()] == [10.0, 1.0]
    with pytest.raises(UsageError, match=r"linear-svm: .*-1"):
        enumerate_for(Request(classifiers=["linear-svm(C=1|-1)"]))


# Classifiers of local vectors, and images of several sizes.


def skips(request, one_size, shape=(1, 16, 16), **options):
    """Return the reasons to skip, by learner, regime and classifier."""
    cells = enumerate_for(request, one_size=one_size, shape=shape, **options)
    return {(cell.learner.name, cell.regime.name, cell.classifier): cell.skip for cell in cells}


EVERYTHING = Request(
    features=["random", "sift(size=8)", "scspm(size=8)"],
    regimes=["R", "R+", "fixed", "U"],
    classifiers=["logistic", "pmk-svm"],
    draws=1,
)

FITS = [("random", "R"), ("random", "R+"), ("sift", "fixed"), ("scspm", "U")]

DIFFER = "the images differ in size, and "
REMEDY = ": a protocol that resizes and pads is needed"
ONE_ROW = (
    "scspm gives one row of features an image, without the local vectors that pmk-svm takes: pair it with a classifier "
    "of rows, as linear-svm"
)
ROWS_ALONE = DIFFER + "so do their features, of which logistic takes rows alone" + REMEDY
NOT_REFINED = DIFFER + "only images of one size can be refined on" + REMEDY


def test_images_of_one_size_go_to_classifiers_of_both_kinds():
    found = skips(EVERYTHING, one_size=True)
    for learner, regime in FITS:
        assert found[learner, regime, "logistic"] == ""
        assert found[learner, regime, "pmk-svm"] == (ONE_ROW if learner == "scspm" else "")
    assert found["raw-pixels", "fixed", "logistic"] == found["chance", "fixed", "guess"] == ""


def test_what_images_of_several_sizes_do_not_go_to_is_skipped_with_its_reason():
    found = skips(EVERYTHING, one_size=False)
    expected = {
        **{("random", "R", "logistic"): ROWS_ALONE, ("random", "R", "pmk-svm"): ""},
        **{("random", "R+", name): NOT_REFINED for name in ("logistic", "pmk-svm")},
        **{("sift", "fixed", "logistic"): ROWS_ALONE, ("sift", "fixed", "pmk-svm"): ""},
        **{("scspm", "U", "logistic"): "", ("scspm", "U", "pmk-svm"): ONE_ROW},
        **{("raw-pixels", "fixed", "logistic"): ROWS_ALONE, ("chance", "fixed", "guess"): ""},
    }
    assert {place: found[place] for place in expected} == expected


@pytest.mark.parametrize(
    ("classifiers", "paired"),
    [
        (["pmk-svm"], ["logistic"]),
        (["pmk-svm", "pmk-svm(levels=1)"], ["logistic"]),
        (["pmk-svm", "knn"], ["knn"]),
        (["knn", "logistic", "pmk-svm"], ["knn", "logistic"]),
    ],
)
@pytest.mark.parametrize("one_size", [True, False])
def test_raw_pixels_are_paired_with_classifiers_of_rows(classifiers, paired, one_size):
    request = Request(features=["random"], regimes=["R"], classifiers=classifiers, draws=1)
    cells = enumerate_for(request, one_size=one_size)
    assert [cell.classifier for cell in cells if cell.learner.name == "raw-pixels"] == paired
    assert [cell.classifier for cell in cells if cell.learner.name == "random"] == classifiers


@pytest.mark.parametrize("one_size", [True, False])
def test_a_learner_of_whole_networks_refuses_images_that_are_too_small(one_size):
    request = Request(features=["sift", "scspm"], classifiers=["pmk-svm", "knn"], draws=1)
    found = skips(request, one_size, shape=(1, 12, 15))
    for name in ("pmk-svm", "knn"):
        reason = found["sift", "fixed", name]
        assert reason == "patches of 16×16 pixels do not fit images of 12×15: try sift(size=12)"
        assert found["scspm", "U", name].startswith("16×16 pixels are needed, and images of 12×15 come in")


def test_one_alternative_that_does_not_fit_is_reason_enough():
    found = skips(Request(features=["sift(size=8|20)"], classifiers=["pmk-svm"], draws=1), one_size=True)
    reason = found["sift", "fixed", "pmk-svm"]
    assert reason == "patches of 20×20 pixels do not fit images of 16×16: try sift(size=16)"


def test_the_protocols_architecture_need_not_fit_where_no_learner_takes_one():
    request = Request(protocol="caltech101-30", features=["sift(size=4)"], classifiers=["pmk-svm"], draws=1)
    census = Census(("a", "b"), (40, 40), (0, 0), has_test=False)
    (cell,) = (cell for cell in enumerate_for(request, census) if cell.learner.name == "sift")
    assert (cell.skip, cell.architecture) == ("", "")
    for named in ({"features": ["random"]}, {"stages": "64F9"}):
        with pytest.raises(ArchitectureError, match="8×8"):
            enumerate_for(dataclasses.replace(request, **named), census)
