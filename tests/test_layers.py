"""The rules of the house: which room imports which, what starting up loads, how long a file may be."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from itertools import combinations
from pathlib import Path

import pytest

import featbench
from featbench.built_in import BUILT_IN
from featbench.store.keys import CLASSIFYING, NUMERICAL, REFINING, find_code_files

ROOT = Path(featbench.__file__).parent

FILES = {
    ".".join(("featbench", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}

PLUGIN_FOLDERS = ("featbench.plugins", "featbench.classifiers", "featbench.datasets", "featbench.protocols")

ROOMS = {
    "errors": "",
    "types": "",
    "arguments": "errors",
    "parameters": "arguments errors",
    "system": "errors",
    "stages": "errors",
    "data": "errors types arguments system stages",
    "images": "data",
    "operations": "errors system stages",
    "cuda": "errors types stages data operations",
    "devices": "errors system operations cuda",
    "sparse": "errors system devices",
    "evaluation": "arguments errors types system data",
    "learning": "errors types parameters system stages data devices sparse evaluation",
    "features": "errors types system stages data operations cuda devices sparse learning",
    "refinement": "errors types parameters system stages operations devices learning",
    "classification": "errors types parameters system evaluation features",
    "built_in": "",
    "hookspecs": "built_in data evaluation learning classification",
    "plugins": "hookspecs errors types system stages evaluation sparse learning features refinement",
    "datasets": "hookspecs errors types system data",
    "classifiers": "hookspecs errors types system features classification",
    "protocols": "hookspecs types data evaluation",
    "plugin_checks": "built_in errors types parameters stages data evaluation learning refinement classification",
    "registry": "plugin_checks built_in hookspecs errors parameters system data evaluation learning classification",
    "extractor": "registry errors types arguments parameters system stages data operations devices evaluation learning "
    "features refinement",
    "experiment": "registry errors types arguments parameters system stages data operations devices evaluation "
    "learning features refinement classification",
    "store": "registry errors types parameters system stages data evaluation learning features refinement experiment",
    "report": "system",
    "statistics": "",
    "execution": "registry errors types parameters system stages devices statistics experiment store report",
    "comparison": "registry arguments system stages data evaluation learning refinement classification statistics "
    "experiment store execution",
    "reproduction": "comparison errors system evaluation experiment statistics execution report",
    "conclusion": "comparison data evaluation experiment execution report statistics",
    "details": "comparison errors types arguments system data evaluation statistics experiment execution report",
    "model": "comparison registry errors types parameters system stages data devices learning operations features "
    "classification experiment store execution report",
    "leaderboard": "comparison errors system data evaluation experiment store execution report",
    "speed": "registry errors system stages operations devices learning store",
    "studies": "comparison registry errors types system stages data devices sparse evaluation learning features "
    "experiment store report",
    "cli": "built_in comparison registry errors types system data devices experiment store execution report "
    "reproduction conclusion details model leaderboard speed studies",
    "__main__": "cli",
}
"""The rooms of featbench, from the lowest to the highest, and which rooms each imports: some of those before it.

A room is a folder, or a file at the top. Imports inside functions and those for type checking count like all others.
"""

HEAVY = ("torch", "numpy", "mlflow", "sklearn", "pandas", "scipy", "PIL")

NO_NUMBERS = (
    *("__init__.py", "built_in.py", "errors.py", "hookspecs.py", "registry.py", "types.py"),
    *("data/__init__.py", "data/checksums.py", "data/dataset.py", "data/folder.py", "data/inspection.py"),
    *("experiment/__init__.py", "experiment/cell.py", "experiment/suspicions.py"),
    *(f"evaluation/{name}.py" for name in ("__init__", "metrics", "protocol", "published", "regimes")),
    *(f"system/{name}.py" for name in ("__init__", "clock", "files", "hashing", "printable", "source_files")),
    *(f"system/{name}.py" for name in ("locks", "tracebacks", "updates", "user_files")),
    *(f"plugin_checks/{name}.py" for name in ("__init__", "parameters", "protocols", "things")),
    *(f"system/{name}.py" for name in ("global_state", "plugin_code", "plugin_origins", "running_source")),
)
"""Files that a cell needs and that decide no number: names, contracts, clocks, what papers say."""


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


def room_of(name):
    return name.split(".")[1]


def arrows():
    """Return the imports between rooms: (room, room that it imports) -> the modules."""
    found = {}
    for name, targets in GRAPH.items():
        for target in targets:
            if room_of(name) != room_of(target):
                found.setdefault((room_of(name), room_of(target)), []).append((name, target))
    return found


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


def test_every_room_is_in_the_table():
    assert {room_of(name) for name in GRAPH} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_what_the_table_lets_it(room):
    allowed = set(ROOMS[room].split())
    assert {pair: names for pair, names in arrows().items() if pair[0] == room and pair[1] not in allowed} == {}


def test_the_table_lets_no_room_import_what_it_does_not():
    assert {(room, other) for room, allowed in ROOMS.items() for other in allowed.split()} == set(arrows())


def test_no_arrow_of_the_table_runs_back_up():
    order = list(ROOMS)
    lower = {room: set(order[: order.index(room)]) for room in order}
    upward = {(room, other) for room, allowed in ROOMS.items() for other in set(allowed.split()) - lower[room]}
    assert upward == set()


def test_few_files_lie_at_the_top():
    assert len([path for path in FILES.values() if path.parent == ROOT]) <= 12


@pytest.mark.parametrize("high", ["experiment", "store", "execution", "comparison"])
def test_the_extractor_needs_no_bench_around_it(high):
    assert high not in {room_of(name) for name in reach("featbench.extractor")}


def test_plugins_datasets_classifiers_and_protocols_are_imported_by_nobody():
    imported = {(name, target) for name, targets in GRAPH.items() for target in targets if folder_of(target)}
    assert imported == set()


def test_the_registry_names_every_built_in_plugin():
    files = {name for name in FILES if folder_of(name) and name not in PLUGIN_FOLDERS}
    assert set(BUILT_IN) == files


def test_plugins_know_neither_store_nor_runner():
    above = {"registry", "store", "experiment", "execution", "comparison"}
    assert {name for name in GRAPH if folder_of(name) and {room_of(one) for one in reach(name)} & above} == set()


def test_only_the_command_line_imports_the_command_line():
    importers = {name for name, targets in GRAPH.items() if any(t.startswith("featbench.cli") for t in targets)}
    assert {name for name in importers if not name.startswith("featbench.cli")} == {"featbench.__main__"}


def files_of(names):
    """Return the paths of modules inside featbench, as the keys name them."""
    return {FILES[name].relative_to(ROOT).as_posix() for name in names}


CELL = ("featbench.experiment.run_cell", "featbench.experiment.steps")
"""What runs a cell."""


@pytest.mark.parametrize("root", [*CELL, *BUILT_IN])
def test_all_code_that_a_cell_runs_is_part_of_its_key(root):
    known = set().union(*(find_code_files(parts) for parts in (NUMERICAL, REFINING, CLASSIFYING)), NO_NUMBERS)
    # A plugin's own source is part of the key of its cells.
    assert files_of(reach(root) | {root}) - known - files_of(BUILT_IN) == set()


LEARNERS = [name for name in BUILT_IN if name.startswith("featbench.plugins.")]

EXTRACTING = (
    *("data.maps", "data.prepare", "evaluation.split", "extractor", "features.extraction", "learning.learner"),
    *("learning.networks", "refinement.refine", "stages.stage"),
)
"""What makes features, with the learners: its code has to be in the key of the features, not in the result's alone."""


@pytest.mark.parametrize("root", [*LEARNERS, *(f"featbench.{name}" for name in EXTRACTING)])
def test_what_makes_features_reaches_nothing_that_only_the_key_of_results_holds(root):
    # All plugins reach the contract of classifiers, which computes nothing, through the hooks.
    assert files_of(reach(root)) & set(find_code_files(CLASSIFYING)) <= {"classification/classifier.py"}


def test_what_classifies_is_reached_by_a_classifier_or_by_running_a_cell():
    roots = [*CELL, *(name for name in BUILT_IN if name.startswith("featbench.classifiers."))]
    reached = files_of(set().union(*(reach(root) for root in roots)))
    assert set(find_code_files(CLASSIFYING)) - reached == {"classification/__init__.py"}


def test_a_file_decides_features_or_results_alone_or_nothing():
    lists = [*(set(find_code_files(parts)) for parts in (NUMERICAL, REFINING, CLASSIFYING)), set(NO_NUMBERS)]
    assert [one & other for one, other in combinations(lists, 2)] == [set()] * 6


@pytest.mark.parametrize("part", [*NUMERICAL, *REFINING, *CLASSIFYING, *NO_NUMBERS])
def test_the_rooms_and_files_of_the_keys_exist(part):
    assert (ROOT / part).is_file() if part.endswith(".py") else (ROOT / part).is_dir()


@pytest.mark.parametrize("path", FILES.values(), ids=FILES.keys())
def test_files_are_short(path):
    assert len(path.read_text("utf-8").splitlines()) <= 320


def test_a_class_name_means_one_thing():
    files = {}
    for path in FILES.values():
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef):
                files.setdefault(node.name, []).append(path.relative_to(ROOT).as_posix())
    assert {name: found for name, found in files.items() if len(found) > 1} == {}


def test_the_design_page_tells_of_every_room_and_of_none_that_is_not_there():
    text = (ROOT.parent / "docs" / "design.md").read_text("utf-8")
    table = text[text.index("From the lowest room to the highest") : text.index("### The path of a cell")]
    names = [name for line in table.splitlines() if line.startswith("| `") for name in line.split("|")[1].split(",")]
    told = {name.strip(" `/").removesuffix(".py") for name in names}
    assert told == set(ROOMS) - {"__main__"}
    missing = [path for path in re.findall(r"`([a-z]+/[a-z_0-9]+\.py)`", text) if not (ROOT / path).is_file()]
    assert [path for path in missing if not (ROOT.parent / path).is_file()] == []


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
