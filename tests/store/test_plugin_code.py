"""Plugins of several files: their results are kept under all of their code, and under the version of their package."""

import importlib
import shutil
import subprocess
import sys
from textwrap import dedent
from types import SimpleNamespace

import pytest

import featbench
from featbench.errors import PluginError, UsageError
from featbench.plugins.module import Module
from featbench.registry import Registry
from featbench.store.keys import Keys
from featbench.system.plugin_origins import describe_code

LEARNER = '''
from dataclasses import dataclass
import featbench

IMPORT

@dataclass(frozen=True)
class Mine(featbench.FilterLearner):
    """A learner of the tests."""
    name = "mine"
    family = "fixed"
    def filters(self, bank, patches, seed):
        INSIDE
        return CALL

@featbench.hookimpl
def featbench_learners():
    return [Mine]
'''

HERE = "import sys, os; sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))"


@pytest.fixture(autouse=True)
def nothing_left(monkeypatch):
    """Leave the path, the loaded modules and the finders as they were."""
    path, modules, finders = list(sys.path), dict(sys.modules), list(sys.meta_path)
    yield
    sys.path[:], sys.meta_path[:] = path, finders
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]
    sys.modules.update(modules)


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
    return folder


def learner(imports=HERE + "\nimport hlp", call="hlp.make(bank)", inside="pass"):
    return LEARNER.replace("IMPORT", imports).replace("INSIDE", inside).replace("CALL", call)


def hash_code(*plugins, name="mine"):
    return Keys(Registry(plugins), None).source("learner", name)


def run(plugin, name="mine"):
    """Return what a freshly loaded learner gives."""
    return Registry([plugin]).learner(name)().filters("bank", None, 0)


MAKE = "def make(bank):\n    return 'old'\n"

SUB = {"pkg/__init__.py": "", "pkg/sub.py": MAKE}
DEEP = {"pkg/__init__.py": "", "pkg/in_/__init__.py": "", "pkg/deep.py": MAKE}
LIB = 'import sys; sys.path.insert(0, __file__.rpartition("/")[0] + "/lib")\nimport hlp'

LAYOUTS = {
    "a file beside it": (learner(), {"hlp.py": MAKE}),
    "from import": (learner(HERE + "\nfrom hlp import make", "make(bank)"), {"hlp.py": MAKE}),
    "star import": (learner(HERE + "\nfrom hlp import *", "make(bank)"), {"hlp.py": MAKE}),
    "under another name": (learner(HERE + "\nimport hlp as h", "h.make(bank)"), {"hlp.py": MAKE}),
    "inside a function": (learner(HERE, "hlp.make(bank)", "import hlp"), {"hlp.py": MAKE}),
    "with the path inside a function": (learner("", "hlp.make(bank)", HERE + "; import hlp"), {"hlp.py": MAKE}),
    "if nothing else is there": (
        learner(HERE + "\ntry:\n    import nowhere as hlp\nexcept ImportError:\n    import hlp"),
        {"hlp.py": MAKE},
    ),
    "a helper of a helper": (learner(), {"deep.py": MAKE, "hlp.py": "from deep import make\n"}),
    "helpers in a circle": (
        learner(),
        {"other.py": "import hlp\n" + MAKE, "hlp.py": "import other\ndef make(bank): return other.make(bank)\n"},
    ),
    "a module of a package": (learner(HERE + "\nimport pkg.sub", "pkg.sub.make(bank)"), dict(reversed(SUB.items()))),
    "from a package": (learner(HERE + "\nfrom pkg import sub", "sub.make(bank)"), dict(reversed(SUB.items()))),
    "in the package itself": (learner(HERE + "\nfrom pkg import make", "make(bank)"), {"pkg/__init__.py": MAKE}),
    "a package around it": (
        learner(HERE + "\nfrom pkg.sub import make", "make(bank)"),
        {"pkg/__init__.py": "WHAT = 'old'\n", "pkg/sub.py": "import pkg\ndef make(bank): return pkg.WHAT\n"},
    ),
    "relative": (
        learner(HERE + "\nfrom pkg.sub import make", "make(bank)"),
        {"pkg/deep.py": MAKE, "pkg/__init__.py": "", "pkg/sub.py": "from .deep import make\n"},
    ),
    "relative to the package above": (
        learner(HERE + "\nfrom pkg.in_.sub import make", "make(bank)"),
        {**dict(reversed(DEEP.items())), "pkg/in_/sub.py": "from .. import deep\nmake = deep.make\n"},
    ),
    "a package without __init__": (learner(HERE + "\nfrom pkg import sub", "sub.make(bank)"), {"pkg/sub.py": MAKE}),
    "by import_module": (
        learner(HERE + "\nimport importlib\nhlp = importlib.import_module('hlp')"),
        {"hlp.py": MAKE},
    ),
    "by __import__": (learner(HERE + "\nhlp = __import__('hlp')"), {"hlp.py": MAKE}),
    "by its path": (
        learner(
            "import runpy, os\nhlp = runpy.run_path(os.path.join(os.path.dirname(__file__), 'hlp.py'))",
            "hlp['make'](bank)",
        ),
        {"hlp.py": MAKE},
    ),
    "in a folder below": (learner(LIB), {"lib/hlp.py": MAKE}),
    "declared as latin-1": (learner(), {"hlp.py": "# coding: latin-1\n" + MAKE}),
}
"""Sources of a plugin and of its helpers, of which the first is edited."""


@pytest.fixture
def layout(request, tmp_path):
    plugin, files = LAYOUTS[request.param]
    write(tmp_path, {"plug.py": plugin, **files})
    return tmp_path / "plug.py", tmp_path / next(iter(files))


@pytest.mark.parametrize("layout", LAYOUTS, indirect=True)
def test_editing_a_helper_changes_the_key_and_what_runs(layout):
    plugin, helper = layout
    before = hash_code(plugin)
    assert run(plugin) == "old"
    assert hash_code(plugin) == before
    # As long, and within the second: bytecode would be taken for current.
    helper.write_text(helper.read_text().replace("'old'", "'new'"))
    assert hash_code(plugin) != before
    assert run(plugin) == "new"
    helper.write_text(helper.read_text().replace("'new'", "'old'"))
    assert run(plugin) == "old"
    assert hash_code(plugin) == before


@pytest.mark.parametrize("layout", LAYOUTS, indirect=True)
def test_a_comment_in_a_helper_does_not_change_the_key(layout):
    plugin, helper = layout
    before = hash_code(plugin)
    helper.write_text(helper.read_text() + "\n# A comment.\n")
    assert hash_code(plugin) == before


@pytest.mark.parametrize("layout", LAYOUTS, indirect=True)
def test_a_copy_elsewhere_has_the_same_key_and_helpers_of_its_own(layout, tmp_path_factory):
    plugin, helper = layout
    before = hash_code(plugin)
    there = tmp_path_factory.mktemp("elsewhere") / "deep" / "down"
    shutil.copytree(plugin.parent, there, ignore=shutil.ignore_patterns("__pycache__"))
    assert hash_code(there / plugin.name) == before
    copied = there / helper.relative_to(plugin.parent)
    copied.write_text(copied.read_text().replace("'old'", "'new'"))
    assert run(there / plugin.name) == "new"
    assert hash_code(there / plugin.name) != before
    assert run(plugin) == "old"
    assert hash_code(plugin) == before


def hash_in_a_new_process(plugin, cwd):
    program = (
        "import sys; from featbench.registry import Registry; from featbench.store.keys import Keys; "
        "print(Keys(Registry(sys.argv[1:]), None).source('learner', 'mine'))"
    )
    command = [sys.executable, "-c", program, plugin]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=cwd).stdout.strip()


def test_the_key_is_the_same_in_another_process(tmp_path):
    plugin, files = LAYOUTS["relative to the package above"]
    write(tmp_path, {"plug.py": plugin, **files})
    assert hash_in_a_new_process("plug.py", cwd=tmp_path) == hash_code(tmp_path / "plug.py")


BESIDES = {
    "another plugin": {"second.py": learner().replace('"mine"', '"second"')},
    "a file that nobody imports": {"spare.py": MAKE},
    "a package that nobody imports": {"spare/__init__.py": MAKE},
    "a module of an imported package that nobody imports": {"pkg/spare.py": MAKE},
    "a text": {"notes.txt": "what to do"},
    "a test of it": {"test_plug.py": "import plug, hlp\n"},
    "cached bytecode": {"__pycache__/hlp.cpython-311.pyc": "no bytecode"},
    "a file with the name of a library's": {"scipy.py": MAKE},
    "data": {"weights.npy": "numbers"},
    "a folder of its name": {"mine/x.py": MAKE},
}


@pytest.mark.parametrize("what", BESIDES)
def test_what_a_plugin_does_not_import_is_not_in_its_key(what, tmp_path):
    write(tmp_path, {"plug.py": learner(HERE + "\nimport hlp, pkg"), "hlp.py": MAKE, "pkg/__init__.py": ""})
    before = hash_code(tmp_path / "plug.py")
    write(tmp_path, BESIDES[what])
    assert hash_code(tmp_path / "plug.py") == before
    for name in BESIDES[what]:
        (tmp_path / name).write_text("ANSWER = 42")
    assert hash_code(tmp_path / "plug.py") == before


CLASSIFIER = """
class T(featbench.Classifier):
    name = "mine"
    def fit(self, *_): return hlp.make(_)
"""

DATASET = """
class T(featbench.Dataset):
    name = "mine"
    def fingerprint(self, d): return "1"
    def load(self, d): return hlp.make(d)
"""

METRIC = """
def score(*_): return hlp.make(0)
def T(): return featbench.Metric("mine", score)
"""

KINDS = {"classifiers": CLASSIFIER, "datasets": DATASET, "metrics": METRIC}


@pytest.mark.parametrize("kind", KINDS)
def test_helpers_of_other_kinds_count_too(kind, tmp_path):
    hook = f"@featbench.hookimpl\ndef featbench_{kind}(): return [T()]\n"
    write(tmp_path, {"plug.py": f"import featbench\n{HERE}\nimport hlp\n{KINDS[kind]}\n{hook}", "hlp.py": MAKE})

    def key():
        keys = Keys(Registry([tmp_path / "plug.py"]), None)
        return keys.dataset("mine") if kind == "datasets" else keys.source(kind.removesuffix("s"), "mine")

    before = key()
    (tmp_path / "hlp.py").write_text(MAKE.replace("old", "new"))
    assert key() != before


def test_a_registry_keeps_the_code_that_it_loaded(tmp_path):
    write(tmp_path, {"plug.py": learner(), "hlp.py": MAKE})
    earlier = Registry([tmp_path / "plug.py"])
    before = hash_code(tmp_path / "plug.py")
    write(tmp_path, {"hlp.py": MAKE.replace("old", "new")})
    assert run(tmp_path / "plug.py") == "new"
    # Its learner still runs the old helper, and its keys still say so, though they are made now.
    assert earlier.learner("mine")().filters("bank", None, 0) == "old"
    assert Keys(earlier, None).source("learner", "mine") == before


def test_a_helper_that_is_imported_later_is_the_one_that_was_hashed(tmp_path):
    write(tmp_path, {"plug.py": learner(HERE, inside="import hlp"), "hlp.py": MAKE})
    registry = Registry([tmp_path / "plug.py"])
    write(tmp_path, {"hlp.py": MAKE.replace("old", "new")})
    assert registry.learner("mine")().filters("bank", None, 0) == "old"
    assert run(tmp_path / "plug.py") == "new"


def test_a_helper_that_was_imported_before_any_plugin_is_run_again(tmp_path, monkeypatch):
    write(tmp_path, {"plug.py": learner(), "hlp.py": MAKE})
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("hlp")
    write(tmp_path, {"hlp.py": MAKE.replace("old", "new")})
    assert run(tmp_path / "plug.py") == "new"


def test_a_class_of_a_helper_is_kept_under_the_plugin_that_makes_it(tmp_path):
    maker = """
        import featbench
        def make(value):
            class Mine(featbench.FilterLearner):
                name, family = "mine", "fixed"
                def filters(self, bank, patches, seed): return value
            return Mine
    """
    plugin = f"import featbench\n{HERE}\nimport hlp\nMine = hlp.make(1)\n" + LEARNER[LEARNER.index("@featbench.hook") :]
    write(tmp_path, {"plug.py": plugin, "hlp.py": maker})
    before = hash_code(tmp_path / "plug.py")
    write(tmp_path, {"plug.py": plugin.replace("make(1)", "make(2)")})
    assert hash_code(tmp_path / "plug.py") != before


def test_a_base_class_among_the_built_in_plugins_counts(tmp_path):
    imports = "from featbench.plugins.pca import Pca as Base"
    plugin = learner(imports).replace("featbench.FilterLearner", "Base")
    write(tmp_path, {"plug.py": plugin})
    module = sys.modules[Registry([tmp_path / "plug.py"]).learner("mine").__module__]
    assert {one.name for one in describe_code(module, [module.Mine]).modules} >= {"", "featbench.plugins.pca"}


# Plugins that come as modules.


def package(folder, code="old"):
    files = {"mypkg/__init__.py": "", "mypkg/plug.py": learner("from . import hlp"), "mypkg/hlp.py": MAKE}
    return write(folder, {name: text.replace("old", code) for name, text in files.items()})


def test_a_module_may_be_named(tmp_path, monkeypatch):
    package(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    hash_code(
        write(tmp_path, {"first.py": learner("", "1")}) / "first.py"
    )  # files and modules do not disturb each other
    before = hash_code("mypkg.plug")
    (record,) = [one for one in Registry(["mypkg.plug"]).records if "mine" in one.gave.get("learners", ())]
    assert (record.name, record.origin, record.error) == ("mypkg.plug", "mypkg.plug", "")
    package(tmp_path, "new")
    forget("mypkg")
    assert hash_code("mypkg.plug") != before
    for name in ("nowhere", "mypkg.nowhere", "nowhere.at.all", "mypkg/plug", "no where", "mypkg.plug.py", "plug.py"):
        with pytest.raises(UsageError, match=r"there is no plugin file .*, and no module of this name"):
            Registry([name])


def test_a_module_that_was_edited_after_its_import_runs_and_is_kept_as_it_was(tmp_path, monkeypatch, caplog):
    package(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("mypkg.plug")
    before = hash_code(module)
    package(tmp_path, "new")
    caplog.clear()
    assert hash_code(module) == before
    assert "hlp.py was edited after it was imported; what runs is the earlier code" in caplog.text
    assert run(module) == "old"
    caplog.clear()
    importlib.reload(sys.modules["mypkg.hlp"])
    assert hash_code(module) != before
    assert run(module) == "new"
    assert caplog.text == ""


def install(folder, version="1.0", code="old", editable=False):
    """Lay out a package with an entry point as pip would, in a folder named site-packages."""
    site = folder / "site-packages"
    package(folder / "src" if editable else site, code)
    info = {"METADATA": f"Metadata-Version: 2.1\nName: my-dist\nVersion: {version}\n", "top_level.txt": "mypkg\n"}
    info["entry_points.txt"] = "[featbench]\nmine = mypkg.plug\n"
    shutil.rmtree(site / "my_dist.dist-info", ignore_errors=True)
    write(site / "my_dist.dist-info", info)
    return site


def forget(*packages):
    """Have packages imported anew, as in another process."""
    importlib.invalidate_caches()
    for name in [name for name in sys.modules if name.split(".")[0] in packages]:
        del sys.modules[name]


@pytest.mark.parametrize("editable", [False, True])
def test_an_entry_point_is_kept_under_its_code_and_the_version_of_its_package(editable, tmp_path, monkeypatch):
    def hash_installed(place, **how):
        site = install(tmp_path / place, editable=editable, **how)
        forget("mypkg")
        with monkeypatch.context() as patched:
            patched.syspath_prepend(site)
            patched.syspath_prepend(tmp_path / place / "src")
            return hash_code()

    first = hash_installed("a")
    assert hash_installed("b") == first
    assert len({first, hash_installed("a", version="1.1"), hash_installed("a", code="new")}) == 3


def test_an_installed_package_that_comes_as_a_module_has_its_version_in_the_key(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(install(tmp_path))
    monkeypatch.setattr("featbench.registry.entry_points", lambda group: ())
    module = importlib.import_module("mypkg.plug")
    before = hash_code(module)
    install(tmp_path, version="1.1")
    importlib.invalidate_caches()
    assert hash_code(module) != before


def test_an_object_is_kept_under_the_modules_of_what_it_gives(tmp_path, monkeypatch):
    package(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("mypkg.plug")
    plugin = SimpleNamespace(featbench_learners=featbench.hookimpl(lambda: [module.Mine]))
    before = hash_code(plugin)
    package(tmp_path, "new")
    importlib.reload(sys.modules["mypkg.hlp"])
    assert hash_code(plugin) != before


# The learner `module`.

NET = """
    import torch
    import os, sys; sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import hlp
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.what = hlp.make(0)
        def forward(self, x):
            return x.flatten(1)
"""


def test_the_file_of_a_module_comes_with_its_helpers(tmp_path):
    write(tmp_path, {"net.py": NET, "hlp.py": "from deep import make\n", "deep.py": MAKE, "spare.py": MAKE})
    module = Module(str(tmp_path / "net.py"), "Net")
    assert [path.name for path in module.files()] == ["net.py", "deep.py", "hlp.py"]
    assert module.network((1, 3, 3), None, 0).what == "old"
    write(tmp_path, {"deep.py": MAKE.replace("old", "new")})
    assert module.network((1, 3, 3), None, 0).what == "new"


# Sources that cannot be read.

SOURCES = {
    "latin-1 in a comment": (
        "# München\n".encode("latin-1"),
        r"not text in utf-8: byte 0xfc in line 1; save it as UTF-8",
    ),
    "latin-1 in a text": ("x = 1\ny = 'é'\n".encode("latin-1"), "byte 0xe9 in line 2"),
    "cp1252": ("x = 1\n\n# – dash\n".encode("cp1252"), "byte 0x96 in line 3"),
    "utf-16": ("x = 1\n".encode("utf-16"), "byte 0xff in line 1"),
    "utf-16 without a mark": ("x = 'ü'\n".encode("utf-16-be"), "byte 0xfc in line 1"),
    "utf-32": ("x = 1\n".encode("utf-32"), "byte 0xff in line 1"),
    "an encoding that is none": (b"# coding: klingon\n", "unknown encoding"),
    "declared as ascii": ("# coding: ascii\n# ü\n".encode(), "not text in ascii: byte 0xc3 in line 2"),
    "declared otherwise than marked": (b"\xef\xbb\xbf# coding: latin-1\n", "encoding problem"),
    "null bytes": (b"x = 1\0\n", "null bytes"),
    "shift-jis": ("# 日本\n".encode("shift-jis"), "byte 0x93 in line 1"),
    "a picture": (b"\x89PNG\r\n\x1a\n", "byte 0x89 in line 1"),
}


@pytest.mark.parametrize("what", SOURCES)
def test_a_source_that_is_no_text_is_refused_by_name(what, tmp_path):
    content, why = SOURCES[what]
    path = tmp_path / "plug.py"
    path.write_bytes(content)
    (broken,) = Registry([path]).broken
    assert broken.origin == str(path)
    with pytest.raises(PluginError, match=why):
        Registry([path], strict=True)


@pytest.mark.parametrize(
    ("declared", "encoding"),
    [
        ("# coding: latin-1\n", "latin-1"),
        ("# -*- coding: cp1252 -*-\n", "cp1252"),
        ("", "utf-8-sig"),
        ("", "utf-8"),
        ("# vim: set fileencoding=shift-jis :\n", "shift-jis"),
        ("#!/usr/bin/env python\n# coding: iso-8859-15\n", "iso-8859-15"),
    ],
)
def test_declared_encodings_are_read(declared, encoding, tmp_path):
    letter = "日" if "jis" in encoding else "ü"
    path = tmp_path / "plug.py"
    path.write_bytes((declared + f"WHAT = '{letter}'\n" + learner("", "WHAT")).encode(encoding))
    assert run(path) == letter
    hash_code(path)


def test_editing_a_helper_computes_the_cells_of_its_plugin_again_and_no_others(
    compare_tiny, write_learner, write_plugin, log
):
    source = (
        write_learner("two").read_text().replace("import featbench\n", "import featbench\n" + HERE + "\nimport hlp\n")
    )
    two = write_plugin("two", source.replace("        return weight", "        return hlp.change(weight)"))
    helper = write_plugin("hlp", "def change(weight):\n    return weight\n")
    one, options = write_learner("one"), ("--features", "one,two", "--regimes", "U")
    before = compare_tiny(*options, plugins=[one, two])
    helper.write_text("def change(weight):\n    return 0 * weight + 1\n")
    after = compare_tiny(*options, plugins=[one, two])
    assert "2 cells computed, 6 read from the store" in after.err
    assert (log.count("one"), log.count("two")) == (2, 4)
    assert before.row("one") == after.row("one")
    assert before.row("two")["scores"] != after.row("two")["scores"]
    assert "nothing to compute" in compare_tiny(*options, plugins=[one, two]).err
