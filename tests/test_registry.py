import importlib.metadata
import os
import sys
from textwrap import dedent

import numpy as np
import pytest

import featbench
from featbench import hookspecs
from featbench.errors import PluginError, UnknownNameError, UsageError
from featbench.plugin_checks.things import KINDS
from featbench.registry import BUILT_IN, Registry
from featbench.store.keys import read_module_source

HOOKS = [name for name, thing in vars(hookspecs).items() if getattr(thing, "featbench_spec", None) is not None]

EXAMPLES = {
    "featbench_learners": """
        from dataclasses import dataclass
        import torch
        import featbench

        @dataclass(frozen=True)
        class Corner(featbench.FilterLearner):
            name = "example"
            family = "fixed"
            initial = "C"
            value: float = 1.0
            def filters(self, bank, patches, seed):
                weight = torch.zeros(bank.shape)
                weight[:, :, 0, 0] = self.value
                return weight

        @featbench.hookimpl
        def featbench_learners():
            return [Corner]
    """,
    "featbench_classifiers": """
        import numpy as np
        import featbench

        class First(featbench.Predictor):
            report = {"says": 0}
            def predict(self, features):
                return np.zeros(len(features), dtype=int)

        class Same(featbench.Classifier):
            name = "example"
            def fit(self, features, labels, validation, classes, seed):
                return First()

        @featbench.hookimpl
        def featbench_classifiers():
            return [Same()]
    """,
    "featbench_datasets": """
        import numpy as np
        import featbench

        class Halves(featbench.Dataset):
            name = "example"
            def fingerprint(self, data_dir):
                return "1"
            def load(self, data_dir):
                labels = np.arange(20) % 2
                pixels = np.zeros((20, 6, 6))
                pixels[labels == 0, :3] = 1
                pixels[labels == 1, 3:] = 1
                return featbench.Images(pixels, labels, ("up", "down"))

        @featbench.hookimpl
        def featbench_datasets():
            return [Halves()]
    """,
    "featbench_metrics": """
        import featbench

        def count_misses(predictions, labels, classes):
            return float((predictions != labels).sum())

        @featbench.hookimpl
        def featbench_metrics():
            return [featbench.Metric("example", count_misses, "images", larger_is_better=False, summary="misses")]
    """,
    "featbench_protocols": """
        import featbench

        @featbench.hookimpl
        def featbench_protocols():
            return [featbench.Protocol(
                name="example", summary="an example", dataset="tiny", architecture="2F3-Rabs-PA2/2",
                preprocessing=featbench.Preprocessing(), train_per_class=3, test="rest", features=("random",),
                regimes=("R",), classifiers=("nearest",), draws=1, metric="mean-per-class-accuracy",
            )]
    """,
    "featbench_tables": """
        import featbench
        from featbench import PublishedRow, PublishedTable

        @featbench.hookimpl
        def featbench_tables():
            row = PublishedRow("R", "random", "R", "one", {"PA": 50.0})
            return [PublishedTable("example", "an example", "tiny", ("PA",), (row,), {"PA": 1.0})]
    """,
    "featbench_commands": """
        import featbench
        from featbench import Command

        def configure(parser):
            parser.add_argument("--times", type=int, default=1)

        def run(options):
            print("hello " * options.times)
            return 3

        @featbench.hookimpl
        def featbench_commands():
            return [Command("example", "say hello", configure, run)]
    """,
}
"""One plugin for each hook."""

BROKEN = {
    "syntax": ("def f(:", "SyntaxError"),
    "not python": ("\x00\x01", "null bytes"),
    "import": ("import a_module_that_is_nowhere", "ModuleNotFoundError.*a_module_that_is_nowhere"),
    "raises at import": ("raise RuntimeError('on purpose')", "RuntimeError: on purpose"),
    "exits at import": ("import sys\nsys.exit(0)", "SystemExit"),
    "no hook": ("x = 1", "implements no hook: define one of .*featbench_learners"),
    "unmarked hook": ("def featbench_learners():\n    return []", "mark it @featbench.hookimpl"),
    "empty": ("", "implements no hook"),
    "unknown hook": (
        "import featbench\n@featbench.hookimpl\ndef featbench_learner():\n    return []",
        "unknown hook 'featbench_learner': did you mean 'featbench_learners'",
    ),
    "hook with arguments": (
        "import featbench\n@featbench.hookimpl\ndef featbench_learners(name):\n    return []",
        "featbench_learners",
    ),
    "hook raises": (
        "import featbench\n@featbench.hookimpl\ndef featbench_learners():\n    return 1 / 0",
        "ZeroDivisionError",
    ),
    "hook exits": (
        "import featbench\n@featbench.hookimpl\ndef featbench_learners():\n    raise SystemExit(0)",
        "SystemExit",
    ),
    **{
        f"hook returns {junk}": (
            f"import featbench\n@featbench.hookimpl\ndef featbench_learners():\n    return {junk}",
            "featbench_learners must return",
        )
        for junk in ("None", "'random'", "{}", "7", "[7]", "[None]", "[featbench.Dataset]", "[featbench]")
    },
    **{
        f"{kind} of another kind": (
            f"import featbench\n@featbench.hookimpl\ndef featbench_{kind}():\n    return [featbench.Images]",
            f"featbench_{kind} must return",
        )
        for kind in KINDS
    },
}
"""Plugins that cannot be loaded, and what their errors hold."""

LEARNERS = {
    "bad family": ('name = "bad"\n    family = "magic"', "family must be one of random, fixed, unsupervised"),
    "no family": ('name = "bad"', "family must be one of"),
    "no name": ('family = "random"', "needs a name"),
    "empty name": ('name = ""\n    family = "random"', "needs a name"),
    "name with a comma": ('name = "a,b"\n    family = "random"', "needs a name"),
    "name with brackets": ('name = "a(b)"\n    family = "random"', "needs a name"),
    "name of a number": ('name = 3\n    family = "random"', "needs a name"),
    "abstract": ('name = "bad"\n    family = "random"\n    filters = featbench.FilterLearner.filters', "filters"),
    "parameter without default": ('name = "bad"\n    family = "random"\n    scale: float', "scale"),
    "default it refuses": (
        'name = "bad"\n    family = "random"\n    def __post_init__(self):\n        raise ValueError("never")',
        "never",
    ),
}
"""Bodies of learners that break their contract."""

METRICS = {
    "name with a comma": ("'a,b', right", "needs a name"),
    "name of a number": ("7, right", "needs a name"),
    "no function": ("'mine'", "missing 1 required positional argument: 'function'"),
    "a partial call": ("'mine', functools.partial(right, classes=3)", "metric mine: define its function with def"),
    "a class": ("'mine', dict", "metric mine: define its function with def"),
    "a direction as text": ("'mine', right, '%', 'lower'", "larger_is_better is True or False, not '%' and 'lower'"),
    "a unit that is no text": ("'mine', right, True", "unit is a text and larger_is_better is True or False"),
    "other needs": ("'mine', right, needs='labels'", "metric mine needs 'labels': it must be one of predictions"),
}
"""Arguments of metrics that break their contract."""

for case, (text, why) in METRICS.items():
    BROKEN[f"metric: {case}"] = (
        "import functools\nimport featbench\n"
        "def right(predictions, labels, classes):\n    return float((predictions == labels).mean())\n"
        f"@featbench.hookimpl\ndef featbench_metrics():\n    return [featbench.Metric({text})]\n",
        why,
    )

for case, (text, why) in LEARNERS.items():
    BROKEN[f"learner: {case}"] = (
        "from dataclasses import dataclass\nimport featbench\n"
        "@dataclass(frozen=True)\nclass Bad(featbench.FilterLearner):\n"
        "    def filters(self, bank, patches, seed):\n        return None\n"
        f"    {text}\n"
        "@featbench.hookimpl\ndef featbench_learners():\n    return [Bad]\n",
        why,
    )


def names(registry):
    return {kind: registry.names(kind) for kind in KINDS}


@pytest.fixture(scope="module")
def built_in():
    return names(Registry())


@pytest.fixture
def example(write_plugin):
    """Write the example of a hook; the file is named by the hook's kind."""
    return lambda hook: write_plugin(hook.removeprefix("featbench_"), EXAMPLES[hook])


# Every hook in use.


def test_every_hook_has_an_example_here():
    assert set(EXAMPLES) == set(HOOKS)
    assert {f"featbench_{kind}" for kind in KINDS} == set(HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_a_plugin_of_each_hook_is_found_by_its_name(example, built_in, hook):
    kind = hook.removeprefix("featbench_")
    registry = Registry([example(hook)])
    assert registry.broken == []
    expected = {**built_in, kind: sorted([*built_in[kind], "example"])}
    assert names(registry) == expected
    assert dict(registry.records[-1].gave) == {kind: ("example",)}
    assert registry.records[-1].origin.endswith(f"{kind}.py")


def test_a_learner_of_a_plugin_takes_part_in_a_comparison(compare_tiny, example):
    ran = compare_tiny("--features", "example(value=2)", plugins=[example("featbench_learners")])
    assert ran.code == 0
    row = ran.row("example(value=2.0)")
    assert (row["regime"], row["label"], row["status"], row["n"]) == ("fixed", "C", "ok", 2)


def test_a_classifier_of_a_plugin_takes_part_in_a_comparison(compare_tiny, example):
    ran = compare_tiny("--classifiers", "example", "--regimes", "R", plugins=[example("featbench_classifiers")])
    assert ran.code == 0
    # Three classes of eight test images each, all predicted to be the first.
    assert ran.row("random")["mean"] == pytest.approx(100 / 3)


def test_a_dataset_of_a_plugin_takes_part_in_a_comparison(compare_tiny, example):
    ran = compare_tiny("--dataset", "example", "--regimes", "R", plugins=[example("featbench_datasets")])
    assert ran.code == 0
    assert ran.row("raw-pixels")["dataset"] == "example"
    assert ran.row("raw-pixels")["mean"] == 100


def test_a_protocol_of_a_plugin_is_compared_under(compare_tiny, example):
    ran = compare_tiny("--protocol", "example", plugins=[example("featbench_protocols")])
    assert ran.code == 0
    row = ran.row("random")
    assert (row["protocol"], row["architecture"], row["draws"]) == ("example", "2F3-Rabs-PA2/2", 1)
    assert (row["train_per_class"], row["metric"]) == (3, "mean-per-class-accuracy")


def test_a_command_of_a_plugin_is_run(run, example, entry_points):
    example("featbench_commands")
    entry_points(hello="commands")
    ran = run("example", "--times", "2")
    assert (ran.code, ran.out) == (3, "hello hello \n")


def test_built_ins_use_the_hooks_of_everyone(built_in):
    registry = Registry()
    assert [record.name for record in registry.records] == list(BUILT_IN)
    given = {kind: sorted(name for r in registry.records for name in r.gave.get(kind, ())) for kind in KINDS}
    assert given == built_in
    assert all(registry.records[i].gave for i in range(len(BUILT_IN)))


def test_an_object_is_a_plugin(built_in):
    class Plugin:
        @featbench.hookimpl
        def featbench_protocols(self):
            return [featbench.Protocol("mine", "", "digits", "4F3", featbench.Preprocessing(), 2, "rest", ("random",))]

    registry = Registry([Plugin()])
    assert registry.names("protocols") == sorted([*built_in["protocols"], "mine"])
    assert (registry.records[-1].name, registry.records[-1].origin) == ("Plugin", "object")


# Broken plugins.


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_caught_and_leaves_nothing(write_plugin, example, built_in, case):
    source, why = BROKEN[case]
    path = write_plugin("broken", source)
    registry = Registry([path, example("featbench_learners")])
    (record,) = registry.broken
    assert (record.name, record.origin) == ("broken", str(path))
    assert record.gave == {}
    assert "\n" not in record.error
    assert record.traceback
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(record.error)
    assert names(registry) == {**built_in, "learners": sorted([*built_in["learners"], "example"])}


@pytest.mark.parametrize("case", BROKEN)
def test_strict_makes_a_broken_plugin_fatal(write_plugin, case):
    path = write_plugin("broken", BROKEN[case][0])
    with pytest.raises(PluginError, match=r"plugin broken \(.*broken.py\) cannot be loaded: "):
        Registry([path], strict=True)


PARTLY = (
    EXAMPLES["featbench_learners"]
    + """
        @featbench.hookimpl
        def featbench_datasets():
            raise RuntimeError("halfway")
"""
)


def test_a_plugin_that_breaks_halfway_gives_nothing(write_plugin, example, built_in):
    registry = Registry([write_plugin("partly", PARTLY)])
    assert names(registry) == built_in
    assert "halfway" in registry.broken[0].error
    # The name that it would have given is free.
    registry.add(example("featbench_learners"))
    assert "example" in registry.names("learners")
    assert len(registry.broken) == 1


@pytest.mark.parametrize("broken", ["def f(:", PARTLY])
def test_a_plugin_that_broke_can_be_mended_and_loaded(write_plugin, broken):
    path = write_plugin("learners", broken)
    registry = Registry([path])
    assert len(registry.broken) == 1
    path.write_text(dedent(EXAMPLES["featbench_learners"]))
    registry.add(path)
    assert len(registry.broken) == 1
    assert registry.learner("example").family == "fixed"


# Metrics of protocols.

METRIC = """
    import featbench

    @featbench.hookimpl
    def featbench_metrics():
        return [featbench.Metric(NAME, lambda predictions, labels, classes: 0.5)]
"""

JUDGED = """
    import featbench

    @featbench.hookimpl
    def featbench_protocols():
        grey = featbench.Preprocessing()
        return [featbench.Protocol(NAME, "", "digits", "4F3", grey, 2, "rest", ("random",), METRIC)]
"""


@pytest.fixture
def write_metric(write_plugin):
    return lambda name: write_plugin(f"metric_{name}", METRIC.replace("NAME", repr(name)))


@pytest.fixture
def write_protocol(write_plugin):
    def write(metric, name="judged"):
        source = JUDGED.replace("NAME", repr(name)).replace("METRIC", f"metric={metric!r}")
        return write_plugin(name, source)

    return write


@pytest.mark.parametrize(
    "metric, why",
    [
        ("f1", "protocol judged: unknown metric 'f1': did you mean 'macro-f1'? known: accuracy, balanced, error, "),
        ("acuracy", "protocol judged: unknown metric 'acuracy': did you mean 'accuracy'?"),
        (
            "zzz",
            "protocol judged: unknown metric 'zzz': known: accuracy, balanced, error, macro-f1, mean-per-class-acc",
        ),
        ("", "protocol judged: metric must be a text that is not empty, not ''"),
        (None, "protocol judged: metric must be a text that is not empty, not None"),
        (["accuracy"], "protocol judged: metric must be a text that is not empty, not ['accuracy']"),
    ],
)
def test_a_protocol_whose_metric_is_unknown_breaks_its_plugin(write_protocol, built_in, metric, why):
    path = write_protocol(metric)
    registry = Registry([path])
    (record,) = registry.broken
    assert (record.name, record.origin, record.gave) == ("judged", str(path), {})
    assert why in record.error
    assert names(registry) == built_in
    with pytest.raises(PluginError, match=r"plugin judged \(.*judged.py\) cannot be loaded: protocol judged: "):
        Registry([path], strict=True)


def test_a_protocol_whose_task_is_unknown_breaks_its_plugin(write_plugin):
    source = JUDGED.replace("NAME", "'judged'").replace("METRIC", "task='regression'")
    (record,) = Registry([write_plugin("judged", source)]).broken
    assert "protocol judged: unknown task 'regression': known: classification" in record.error


@pytest.mark.parametrize("first", ["metric", "protocol"])
def test_the_metric_of_a_protocol_may_come_from_an_earlier_or_a_later_plugin(write_metric, write_protocol, first):
    paths = [write_metric("mine"), write_protocol("mine")]
    registry = Registry(paths if first == "metric" else paths[::-1], strict=True)
    assert registry.broken == []
    assert registry.protocol("judged").metric == registry.metric("mine").name == "mine"


def test_a_plugin_may_give_a_protocol_and_its_metric(write_plugin):
    source = dedent(METRIC.replace("NAME", "'mine'")) + dedent(
        JUDGED.replace("NAME", "'judged'").replace("METRIC", "metric='mine'")
    )
    registry = Registry([write_plugin("both", source)], strict=True)
    assert dict(registry.records[-1].gave) == {"metrics": ("mine",), "protocols": ("judged",)}


def test_plugins_may_wait_for_one_another_in_a_row(write_plugin, write_metric, write_protocol):
    second = dedent(METRIC.replace("NAME", "'second'")) + dedent(
        JUDGED.replace("NAME", "'middle'").replace("METRIC", "metric='first'")
    )
    paths = [write_protocol("second"), write_plugin("second", second), write_metric("first")]
    registry = Registry(paths, strict=True)
    assert {"judged", "middle"} <= set(registry.names("protocols"))
    assert len(registry.records) == len(BUILT_IN) + 3


def test_a_metric_of_a_broken_plugin_is_unknown_and_the_others_stay(write_plugin, write_metric, write_protocol):
    broken = dedent(METRIC.replace("NAME", "'mine'")) + "raise RuntimeError('on purpose')"
    registry = Registry([write_protocol("mine"), write_plugin("broken", broken), write_metric("other")])
    assert [record.name for record in registry.broken] == ["broken", "judged"]
    assert "unknown metric 'mine'" in registry.broken[1].error
    assert registry.metric("other").name == "other"


def test_a_plugin_that_waited_is_executed_once(write_plugin, write_protocol, write_metric, log):
    waiting = write_protocol("mine")
    waiting.write_text("import os\nopen(os.environ['FEATBENCH_TEST_LOG'], 'a').write('ran\\n')\n" + waiting.read_text())
    Registry([waiting, write_metric("mine")], strict=True)
    assert log.count("ran") == 1


def test_a_protocol_that_is_added_needs_a_metric_that_is_there(write_metric, write_protocol):
    registry = Registry()
    registry.add(write_protocol("mine"))
    assert len(registry.broken) == 1
    registry.add(write_metric("mine"))
    registry.add(write_protocol("mine", "again"))
    assert len(registry.broken) == 1
    assert "again" in registry.names("protocols")


def test_a_metric_of_a_plugin_takes_part_in_a_comparison(compare_tiny, write_plugin, example):
    protocol = write_plugin("judged", JUDGED.replace("NAME", "'judged'").replace("METRIC", "metric='example'"))
    plugins = [protocol, example("featbench_metrics")]
    ran = compare_tiny("--protocol", "judged", "--regimes", "R", "--draws", "2", plugins=plugins)
    assert ran.code == 0
    row = ran.row("random")
    assert (row["metric"], row["unit"]) == ("example", "images")
    assert all(score == int(score) for score in row["scores"])
    assert ran.row("chance")["mean"] > row["mean"] > 100  # images of 1,777 that were missed
    assert "images (" in ran.err
    assert "%" not in ran.err


def test_an_interrupted_plugin_interrupts(write_plugin):
    path = write_plugin("interrupted", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        Registry([path])


@pytest.mark.parametrize("hook", HOOKS)
def test_two_plugins_of_one_name_are_an_error_that_names_both(write_plugin, example, hook):
    first = example(hook)
    second = write_plugin("second", EXAMPLES[hook])
    registry = Registry([first, second])
    (record,) = registry.broken
    assert record.origin == str(second)
    kind = hook.removeprefix("featbench_").rstrip("s")
    assert f"{kind} 'example' is given by" in record.error
    assert str(first) in record.error
    assert str(second) in record.error
    assert registry.names(f"{kind}s").count("example") == 1


def test_a_plugin_cannot_take_the_name_of_a_built_in(write_plugin):
    path = write_plugin("mine", EXAMPLES["featbench_learners"].replace('"example"', '"random"'))
    registry = Registry([path])
    assert "featbench.plugins.random" in registry.broken[0].error
    assert registry.learner("random").__module__ == "featbench.plugins.random"


def test_one_plugin_cannot_give_a_name_twice(write_plugin):
    path = write_plugin("twice", EXAMPLES["featbench_learners"].replace("[Corner]", "[Corner, Corner]"))
    assert "'example' is given by" in Registry([path]).broken[0].error


def test_a_plugin_named_twice_is_said_in_plain_words_and_stays(example):
    path = example("featbench_learners")
    registry = Registry([path, path])
    (record,) = registry.broken
    assert "twice" in record.error or "already" in record.error
    assert "\n" not in record.error
    assert registry.learner("example").name == "example"


def test_an_object_named_twice_stays(built_in):
    class Plugin:
        @featbench.hookimpl
        def featbench_protocols(self):
            return [featbench.Protocol("mine", "", "digits", "4F3", featbench.Preprocessing(), 2, "rest", ("random",))]

    plugin = Plugin()
    registry = Registry([plugin, plugin])
    assert len(registry.broken) == 1
    assert registry.protocol("mine").name == "mine"


def test_what_a_plugin_imports_is_no_hook(write_plugin):
    # torch.ops answers to every name.
    path = write_plugin("imports", "from torch import ops\n" + dedent(EXAMPLES["featbench_learners"]))
    assert Registry([path]).broken == []


def test_a_plugin_file_that_is_missing_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match=r"there is no plugin file .*nowhere\.py"):
        Registry([tmp_path / "nowhere.py"])
    with pytest.raises(UsageError, match="there is no plugin file"):
        Registry([tmp_path])


def test_a_plugin_that_is_no_python_file_is_broken(tmp_path):
    path = tmp_path / "plugin.txt"
    path.write_text(dedent(EXAMPLES["featbench_learners"]))
    assert "is not a Python file" in Registry([path]).broken[0].error


def test_two_plugin_files_of_one_name_do_not_mix(tmp_path, built_in):
    paths = []
    for number in (1, 2):
        path = tmp_path / str(number) / "plugin.py"
        path.parent.mkdir()
        path.write_text(dedent(EXAMPLES["featbench_learners"]).replace('"example"', f'"example{number}"'))
        paths.append(path)
    registry = Registry(paths)
    assert registry.broken == []
    assert {"example1", "example2"} <= set(registry.names("learners"))
    assert 'name = "example1"' in read_module_source(registry.learner("example1"))
    assert 'name = "example2"' in read_module_source(registry.learner("example2"))


# Names.


@pytest.mark.parametrize(
    "kind, wrong, right",
    [
        ("learner", "randon", "random"),
        ("learner", "PSD", "psd"),
        ("classifier", "logistics", "logistic"),
        ("dataset", "digit", "digits"),
        ("protocol", "minst", "mnist"),
    ],
)
def test_a_name_that_is_nearly_right_gets_a_suggestion(kind, wrong, right):
    with pytest.raises(UnknownNameError, match=f"unknown {kind} '{wrong}': did you mean '{right}'"):
        getattr(Registry(), kind)(wrong)


def test_an_unknown_name_is_told_which_plugins_are_missing(write_plugin):
    path = write_plugin("broken", "def f(:")
    with pytest.raises(UnknownNameError, match=r"could not be loaded: broken \(.*broken.py\)"):
        Registry([path]).learner("mine")


def test_a_hook_may_be_named_by_its_mark(write_plugin):
    source = EXAMPLES["featbench_learners"].replace(
        "@featbench.hookimpl", '@featbench.hookimpl(specname="featbench_learners")'
    )
    path = write_plugin("marked", source.replace("def featbench_learners", "def my_own_name"))
    assert Registry([path]).learner("example").family == "fixed"


# Entry points.


@pytest.fixture
def entry_points(monkeypatch, write_plugin):
    """Pretend that packages are installed which name these modules of the plugins' folder."""
    folder = write_plugin("none", "").parent
    monkeypatch.syspath_prepend(folder)

    def install(**modules):
        points = [importlib.metadata.EntryPoint(name, module, "featbench") for name, module in modules.items()]
        monkeypatch.setattr("featbench.registry.entry_points", lambda group: {"featbench": points}[group])

    yield install
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(folder)):
            del sys.modules[name]


def test_entry_points_are_loaded_one_by_one(entry_points, example, write_plugin, built_in):
    example("featbench_learners")
    example("featbench_classifiers")
    write_plugin("broken_module", "import a_module_that_is_nowhere")
    entry_points(first="learners", gone="a_module_that_is_nowhere", broken="broken_module", last="classifiers")
    registry = Registry()
    assert {record.name: "a_module_that_is_nowhere" in record.error for record in registry.broken} == {
        "gone": True,
        "broken": True,
    }
    assert registry.broken[1].origin == "entry point broken_module"
    expected = {kind: [*built_in[kind], "example"] for kind in ("learners", "classifiers")}
    assert names(registry) == {**built_in, **{kind: sorted(names) for kind, names in expected.items()}}


def test_an_entry_point_takes_part_in_a_comparison(entry_points, example, compare_tiny):
    example("featbench_learners")
    entry_points(first="learners")
    ran = compare_tiny("--features", "example", "--draws", "1")
    assert (ran.code, ran.row("example")["status"]) == (0, "ok")


def test_a_broken_entry_point_is_said_and_does_not_count_against_the_comparison(entry_points, compare_tiny):
    entry_points(gone="a_module_that_is_nowhere")
    ran = compare_tiny("--regimes", "R", "--draws", "1")
    assert ran.code == 0
    assert "plugin gone (entry point a_module_that_is_nowhere) could not be loaded" in ran.err
    assert ran.row("random")["status"] == "ok"


def test_strict_makes_a_broken_entry_point_fatal(entry_points, compare_tiny):
    entry_points(gone="a_module_that_is_nowhere")
    ran = compare_tiny("--strict")
    assert ran.code == 2
    assert ran.err.startswith("featbench: error: plugin gone (entry point a_module_that_is_nowhere) cannot be loaded")


# Sources.


def test_the_source_of_a_plugin_is_the_text_of_its_file(example):
    path = example("featbench_learners")
    registry = Registry([path])
    assert read_module_source(registry.learner("example")) == path.read_text()
    assert read_module_source(registry.classifier("logistic")).startswith('"""Multinomial logistic regression')


def test_a_class_without_a_source_file_is_refused():
    space = {"__name__": "typed_in", "featbench": featbench}
    exec("class Typed(featbench.Classifier):\n    name = 'typed'\n    fit = None", space)
    with pytest.raises(PluginError, match=r"Typed has no source file.*put it into a \.py file"):
        read_module_source(space["Typed"])


def test_an_edit_of_the_same_length_within_a_second_is_seen(example, monkeypatch):
    # Bytecode is told apart by seconds and length alone, and neither changes here.
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = example("featbench_learners")
    os.utime(path, ns=(10**18, 10**18))
    assert Registry([path]).learner("example").create({}).parameters() == {"value": 1.0}
    path.write_text(path.read_text().replace("value: float = 1.0", "value: float = 2.0"))
    os.utime(path, ns=(10**18 + 1000, 10**18 + 1000))
    registry = Registry([path])
    assert registry.learner("example").create({}).parameters() == {"value": 2.0}
    assert "= 2.0" in read_module_source(registry.learner("example"))


def test_a_plugin_may_use_numpy_for_its_filters(write_plugin, compare_tiny):
    source = EXAMPLES["featbench_learners"].replace("weight[:, :, 0, 0] = self.value", "weight = weight.numpy() + 1")
    ran = compare_tiny("--features", "example", plugins=[write_plugin("numpy_learner", source)])
    assert ran.row("example")["status"] == "ok"
    assert np.isfinite(ran.row("example")["mean"])
