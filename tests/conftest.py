"""What tests share: a store of their own, and a data set so small that a comparison takes a fraction of a second."""

import os
from pathlib import Path
from textwrap import dedent

# Nets this small gain nothing from threads, and lose much where the cores are busy. Read once, when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

if not torch.cuda.is_available():
    # Kernels run in Triton's interpreter; that is chosen before Triton is first imported.
    os.environ.setdefault("TRITON_INTERPRET", "1")

from helpers.images import image_folder
from helpers.plugin_sources import LEARNER, TINY
from helpers.runs import Log, Ran

from featbench.cli.main import main
from featbench.data.inventory import explain_absence


def pytest_collection_modifyitems(items):
    """Put the pages of the docs first: the longest tests must not be what the other worker waits for at the end."""
    items.sort(key=lambda item: item.path.name != "test_docs.py")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The store's folder; nothing that a test does may end up in the working folder."""
    home = tmp_path / "home"
    monkeypatch.setenv("FEATBENCH_HOME", str(home))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return home


@pytest.fixture(autouse=True)
def log(tmp_path, monkeypatch):
    """What the plugins of the tests append to."""
    path = tmp_path / "log"
    monkeypatch.setenv("FEATBENCH_TEST_LOG", str(path))
    return Log(path)


@pytest.fixture
def real_files():
    """Where the real files of a data set lie; a test that asks for them where they are not is skipped."""

    def folder(dataset):
        place = os.environ.get("FEATBENCH_DATA")
        reason = explain_absence(dataset.name, dataset, place and Path(place))
        if reason:
            pytest.skip(reason)
        return Path(place)

    return folder


@pytest.fixture
def device():
    """Where kernels under test run: on a GPU as compiled, elsewhere as interpreted."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def randn(device):
    """Draw normal numbers of a shape, the same on every device."""
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=generator).to(device)


@pytest.fixture
def error():
    """Return ‖a - b‖/‖b‖ in float64."""

    def error(a, b):
        assert a.shape == b.shape
        a, b = a.double(), b.double()
        return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b).clamp_min(1e-300))

    return error


@pytest.fixture
def store(home):
    from featbench.store.store import Store

    return Store(home)


@pytest.fixture
def write_plugin(tmp_path):
    """Write a plugin file from its source and return its path."""

    def write(name, source):
        path = tmp_path / "plugins" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(dedent(source))
        return path

    return write


@pytest.fixture
def tiny(write_plugin):
    """The plugin with the data set, the protocol `tiny` and the classifier `nearest`."""
    return write_plugin("tiny", TINY)


@pytest.fixture
def write_learner(write_plugin):
    """Write a plugin with one learner, which logs its name whenever it is asked; `body` ends its method `filters`."""

    def write(name="counted", body="return weight", family="unsupervised"):
        lines = "\n".join(f"        {line}" for line in dedent(body).strip().splitlines())
        return write_plugin(name, LEARNER.replace("NAME", name).replace("FAMILY", family).replace("BODY", lines))

    return write


@pytest.fixture
def run(capsys):
    """Call `featbench` in this process."""

    def run(*arguments):
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        caught = capsys.readouterr()
        return Ran(code, caught.out, caught.err)

    return run


@pytest.fixture
def compare_tiny(run, tiny):
    """Call `featbench compare` on the tiny protocol, with these plugins and options; rows come as JSON."""

    def compare(*options, plugins=(), track=False):
        named = [text for plugin in (tiny, *plugins) for text in ("--plugin", plugin)]
        tracking = [] if track else ["--no-track"]
        return run("compare", "--protocol", "tiny", "--format", "json", "--device", "cpu", *named, *tracking, *options)

    return compare


@pytest.fixture
def unlabelled(tmp_path):
    """A folder of unlabelled images, of another size than the data set's."""
    return image_folder(tmp_path / "unlabelled", 5, (9, 7))
