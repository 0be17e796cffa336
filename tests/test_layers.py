"""The rules of the house: who may import whom, what starting up loads, how long a file may be."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from itertools import combinations, pairwise
from pathlib import Path

import pytest

import featbench
from featbench.built_in import BUILT_IN
from featbench.keys import CLASSIFYING_MODULES, NUMERICAL_MODULES, REFINING_MODULES

ROOT = Path(featbench.__file__).parent

FILES = {
    ".".join(("featbench", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}

PLUGIN_FOLDERS = ("featbench.plugins", "featbench.classifiers", "featbench.datasets", "featbench.protocols")

LADDER = ("types", "stages", "network", "experiment", "runner", "comparison", "cli.compare")

HEAVY = ("torch", "numpy", "mlflow", "sklearn", "pandas", "scipy", "PIL")


NO_NUMBERS = {
    *("types", "errors", "cell", "clock", "protocol", "regimes", "registry", "hookspecs"),
    *("built_in", "command", "dataset", "hashing", "files", "published", "sparse"),
}
"""Modules that a cell needs and that decide no number: names, contracts, clocks, what papers say."""


def imports_of(path):
    """Return every module of featbench that a file names in an import, wherever in the file that is."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            # `from featbench.cli import options` names a module, `from featbench.types import Images` a thing in one.
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else node.module for name in inner}
    return {name for name in found if name == "featbench" or name.startswith("featbench.")}


# The package itself re-exports public names, lazily: who imports it for its version imports nothing else by that.
GRAPH = {name: imports_of(path) - {"featbench", name} for name, path in FILES.items() if name != "featbench"}


def reach(name):
    """Return every module that a module imports, directly or not."""
    seen, waiting = set(), [name]
    while waiting:
        fresh = GRAPH[waiting.pop()] - seen
        seen |= fresh
        waiting += fresh
    return seen


def folder_of(name):
    return next((folder for folder in PLUGIN_FOLDERS if name == folder or name.startswith(folder + ".")), None)


def loaded_by(code):
    """Return which modules a fresh interpreter has loaded after running some code."""
    program = f"{code}\nimport sys\nprint('loaded:', *sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.rpartition("loaded:")[2].split()


def test_every_import_names_a_module_that_exists():
    unknown = {(name, target) for name, targets in GRAPH.items() for target in targets if target not in FILES}
    assert unknown == set()


def test_imports_have_no_cycles():
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(" > ".join(error.args[1]))


@pytest.mark.parametrize("low, high", [(a, b) for i, a in enumerate(LADDER) for b in LADDER[i + 1 :]])
def test_a_lower_layer_does_not_reach_a_higher_one(low, high):
    assert f"featbench.{high}" not in reach(f"featbench.{low}")


@pytest.mark.parametrize("high", ["experiment", "caching", "runner", "comparison", "store", "tracking"])
def test_the_extractor_needs_no_bench_around_it(high):
    assert f"featbench.{high}" not in reach("featbench.extractor")


def test_each_layer_stands_on_the_one_below():
    # Otherwise the test above would hold for layers that have nothing to do with each other.
    for low, high in pairwise(LADDER):
        if low != "types":
            assert f"featbench.{low}" in reach(f"featbench.{high}"), (low, high)


def test_plugins_datasets_classifiers_and_protocols_are_imported_by_nobody():
    imported = {(name, target) for name, targets in GRAPH.items() for target in targets if folder_of(target)}
    assert imported == set()


def test_the_registry_names_every_built_in_plugin():
    files = {name for name in FILES if folder_of(name) and name not in PLUGIN_FOLDERS}
    assert set(BUILT_IN) == files


def test_plugins_know_neither_store_nor_runner():
    above = {f"featbench.{name}" for name in ("registry", "store", "keys", "experiment", "runner", "comparison")}
    assert {name for name in GRAPH if folder_of(name) and reach(name) & above} == set()


def test_only_the_command_line_imports_the_command_line():
    importers = {name for name, targets in GRAPH.items() if any(t.startswith("featbench.cli") for t in targets)}
    assert {name for name in importers if not name.startswith("featbench.cli")} == {"featbench.__main__"}


def test_nothing_below_imports_a_report():
    below = reach("featbench.comparison") | reach("featbench.extractor") | {"featbench.comparison"}
    assert {name for name in below if name.startswith(("featbench.report", "featbench.cli"))} == set()


@pytest.mark.parametrize("root", ["featbench.experiment", *BUILT_IN])
def test_all_code_that_a_cell_runs_is_part_of_its_key(root):
    known = {f"featbench.{name}" for name in (*NUMERICAL_MODULES, *REFINING_MODULES, *CLASSIFYING_MODULES, *NO_NUMBERS)}
    # A plugin's own source is part of the key of its cells.
    assert (reach(root) | {root}) - known - set(BUILT_IN) == set()


LEARNERS = [name for name in BUILT_IN if name.startswith("featbench.plugins.")]

EXTRACTING = ("network", "refine", "preprocess", "prepare", "split", "stages", "learner", "extractor")
"""What makes features, with the learners: its code has to be in the key of the features, not in the result's alone."""


@pytest.mark.parametrize("root", [*LEARNERS, *(f"featbench.{name}" for name in EXTRACTING)])
def test_what_makes_features_reaches_nothing_that_only_the_key_of_results_holds(root):
    # All plugins reach the contract of classifiers, which computes nothing, through the hooks.
    assert reach(root) & {f"featbench.{name}" for name in CLASSIFYING_MODULES} <= {"featbench.classifier"}


def test_what_classifies_is_reached_by_a_classifier_or_by_running_a_cell():
    roots = ["featbench.experiment", *(name for name in BUILT_IN if name.startswith("featbench.classifiers."))]
    reached = set().union(*(reach(root) for root in roots))
    assert {f"featbench.{name}" for name in CLASSIFYING_MODULES} - reached == set()


def test_a_module_decides_features_or_results_alone_or_nothing():
    lists = [NUMERICAL_MODULES, REFINING_MODULES, CLASSIFYING_MODULES, sorted(NO_NUMBERS)]
    assert [set(one) & set(other) for one, other in combinations(lists, 2)] == [set()] * 6
    assert [len(set(names)) for names in lists] == [len(names) for names in lists]


@pytest.mark.parametrize("name", [*NUMERICAL_MODULES, *REFINING_MODULES, *CLASSIFYING_MODULES])
def test_the_modules_of_the_keys_exist(name):
    assert (ROOT / f"{name.replace('.', '/')}.py").is_file()


@pytest.mark.parametrize("path", FILES.values(), ids=FILES.keys())
def test_files_are_short(path):
    assert len(path.read_text("utf-8").splitlines()) <= 320


def test_help_loads_nothing_heavy():
    loaded = loaded_by("from featbench.cli.main import main\nmain(['--help'])")
    assert "featbench.cli.main" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_importing_featbench_loads_nothing_heavy():
    loaded = loaded_by("import featbench")
    assert "featbench" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_every_public_name_is_there():
    for name in featbench.__all__:
        assert name == "hookimpl" or getattr(featbench, name).__name__ == name
    assert callable(featbench.hookimpl)
    assert set(featbench.__all__) <= set(dir(featbench))


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Extracter'"):
        featbench.Extracter  # noqa: B018
