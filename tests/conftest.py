"""What tests share: a store of their own, and a data set so small that a comparison takes a fraction of a second."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

# Nets this small gain nothing from threads, and lose much where the cores are busy. Read once, when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

if not torch.cuda.is_available():
    # Kernels run in Triton's interpreter; that is chosen before Triton is first imported.
    os.environ.setdefault("TRITON_INTERPRET", "1")

from featbench.cli.main import main
from featbench.inventory import missing

TINY = '''
import os
from pathlib import Path
import numpy as np
import featbench

def log(line):
    with open(os.environ["FEATBENCH_TEST_LOG"], "a") as file:
        file.write(line + "\\n")

class Tiny(featbench.Dataset):
    """Three classes of 6x6 images, 12 each; data_dir/version, where it exists, is what they depend on."""
    name = "tiny"
    def fingerprint(self, data_dir):
        path = None if data_dir is None else Path(data_dir) / "version"
        return path.read_text() if path is not None and path.exists() else "0"
    def load(self, data_dir):
        log("load")
        generator = np.random.default_rng(int(self.fingerprint(data_dir)))
        labels = np.repeat(np.arange(3), 12)
        patterns, noise = generator.normal(size=(3, 6, 6)), generator.normal(size=(36, 6, 6))
        return featbench.Images((patterns[labels] + 1.5 * noise).astype(np.float32), labels, ("a", "b", "c"))

class _Means(featbench.Predictor):
    def __init__(self, means):
        self.means, self.report = means, {"classes": len(means)}
    def predict(self, features):
        distances = ((features[:, None].astype(np.float64) - self.means) ** 2).sum(axis=2)
        return distances.argmin(axis=1)

class Nearest(featbench.Classifier):
    """Nearest class mean."""
    name = "nearest"
    def fit(self, features, labels, validation, classes, seed):
        return _Means(np.stack([features[labels == k].astype(np.float64).mean(axis=0) for k in range(classes)]))

@featbench.hookimpl
def featbench_datasets():
    return [Tiny()]

@featbench.hookimpl
def featbench_classifiers():
    return [Nearest()]

@featbench.hookimpl
def featbench_protocols():
    return [featbench.Protocol(
        name="tiny", summary="6x6 images", dataset="tiny", architecture="4F3-Rabs-PA2/2",
        preprocessing=featbench.Preprocessing(), train_per_class=4, test="rest", features=("random",),
        regimes=("R", "U", "R+", "U+", "fixed"), classifiers=("nearest",), draws=2,
    )]
'''

LEARNER = '''
import os
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
import torch
import featbench

def log(line):
    with open(os.environ["FEATBENCH_TEST_LOG"], "a") as file:
        file.write(line + "\\n")

@dataclass(frozen=True)
class NAME(featbench.FilterLearner):
    """A learner of the tests."""
    name: ClassVar[str] = "NAME"
    family: ClassVar[str] = "FAMILY"
    scale: float = 1.0
    def filters(self, bank, patches, seed):
        log("NAME")
        generator = torch.Generator().manual_seed(seed)
        weight = self.scale * torch.randn(bank.shape, generator=generator)
BODY

@featbench.hookimpl
def featbench_learners():
    return [NAME]
'''


@dataclass(frozen=True)
class Ran:
    """What a call of the command line gave."""

    code: int
    out: str
    err: str

    @property
    def rows(self):
        """The rows of `--format json`; NaN and Infinity, which strict JSON does not know, are refused."""
        return json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))

    def row(self, learner, regime=None):
        """The one row of a learner."""
        (found,) = [r for r in self.rows if r["learner"] == learner and regime in (None, r["regime"])]
        return found


class Log:
    """Lines that plugins appended while they worked, in this process or another."""

    def __init__(self, path):
        self.path = path

    def lines(self):
        return self.path.read_text().split() if self.path.exists() else []

    def count(self, line):
        return self.lines().count(line)


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
        reason = missing(dataset.name, dataset, place and Path(place))
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
    from featbench.store import Store

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


def image_folder(folder: Path, count: int, sides: tuple[int, int], seed: int = 0) -> Path:
    """Fill a folder with grey noise images."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    for number in range(count):
        Image.fromarray(generator.integers(0, 256, size=sides, dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


def noise(*shape, seed=0):
    """Return normal numbers of a shape, float32."""
    import numpy as np

    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).float()


def random_network(text, shape):
    """Return an architecture with random filters, on the CPU."""
    from featbench.architecture import Architecture
    from featbench.network import assemble, learn_stages
    from featbench.plugins.random import Random

    architecture, learner = Architecture.parse(text), Random()
    learned = learn_stages(architecture, learner, shape, None, seed=0, device=torch.device("cpu"))
    return assemble(architecture, learner, shape, learned).eval()


@pytest.fixture
def unlabelled(tmp_path):
    """A folder of unlabelled images, of another size than the data set's."""
    return image_folder(tmp_path / "unlabelled", 5, (9, 7))
