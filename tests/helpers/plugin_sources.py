"""Sources of plugins: a data set so small that a comparison takes a fraction of a second, and a learner."""

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
