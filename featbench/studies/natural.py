"""Patches of natural images, and what a learner finds in them: filters, a dictionary and predicted codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from featbench.comparison import Workbench
from featbench.data.dataset import wrap_errors
from featbench.data.image_files import hash_image_folder
from featbench.data.maps import Preprocessing
from featbench.errors import UsageError
from featbench.experiment.request import parse_choice
from featbench.learning.banks import fill_bank
from featbench.learning.learner import FilterLearner
from featbench.learning.patches import MapSource, PatchSource
from featbench.stages.connection_table import make_full_table
from featbench.stages.filters import Bank, Filters
from featbench.system.seeds import derive_seed, seeded
from featbench.system.user_files import expand_user

CPU = torch.device("cpu")

BLOCK = 8192
"""Patches encoded at once."""


def make_preprocessing(lcn: float) -> Preprocessing:
    """Return the preprocessing of images and frames: standardised, then LCN with the constant `lcn` (0: none)."""
    return Preprocessing(standardise=True, lcn=lcn or None)


def sample_patches(workbench: Workbench, unlabelled: str, size: int, count: int, seed: int, lcn: float = 1.0) -> Tensor:
    """Return `count` patches [count, size, size] of grey, preprocessed images. Flat patches are left out.

    `unlabelled` is a folder of images or a data set.
    """
    maps = workbench.steps.load_pool(unlabelled, make_preprocessing(lcn))
    source = PatchSource(MapSource(maps, nn.Identity(), CPU), size, derive_seed(seed, "study", "patches"))
    return source.sample(count)[:, 0]


def read_fingerprint(workbench: Workbench, unlabelled: str) -> dict[str, str]:
    """Return the fingerprint of unlabelled images by the name of their data set or folder."""
    if unlabelled in workbench.registry.names("datasets"):
        with wrap_errors(unlabelled):
            return {unlabelled: workbench.registry.dataset(unlabelled).fingerprint(workbench.data_dir)}
    return {Path(unlabelled).name: hash_image_folder(expand_user(unlabelled))}


def centre_patches(patches: Tensor) -> Tensor:
    """Return patches [n, …] as rows [n, d], each with its own mean subtracted."""
    rows = patches.flatten(1)
    return rows - rows.mean(dim=1, keepdim=True)


def create_learner(workbench: Workbench, text: str, **changes: Any) -> FilterLearner:
    """Return the filter learner that a text such as psd(lam=0.5) names, with some parameters changed.

    Raises `UsageError` for a learner that learns no filters, and for parameters that it does not have.
    """
    choice = parse_choice(text, workbench.registry)
    learner = workbench.registry.learner(choice.name).create({**dict(choice.parameters), **changes})
    if not isinstance(learner, FilterLearner):
        raise UsageError(f"{choice.name} learns no filters: name a learner that does, as psd")
    return learner


def learn_filters(learner: FilterLearner, rows: Tensor, size: int, maps: int, seed: int) -> Filters:
    """Return filters for `maps` maps, learned on patches [n, size²]. Raises `UsageError` if the learner refuses."""
    bank = Bank(maps, size, 1)
    reason = learner.refusal(bank)
    if reason:
        raise UsageError(f"{learner.name}: {reason}")
    # Each patch becomes an image of its own size: the only patch that can be cut from it is itself.
    images = rows.view(-1, 1, size, size)
    source = PatchSource(MapSource(images, nn.Identity(), CPU), size, derive_seed(seed, "study", "learn"))
    with seeded(derive_seed(seed, "study", "filters")):
        return fill_bank(learner, bank, source, derive_seed(seed, "study", "filters"))


def find_atoms(learner: FilterLearner, filters: Filters) -> Tensor:
    """Return a learner's dictionary [d, units], a unit-norm atom in each column.

    Raises `UsageError` for a learner that keeps no dictionary with its filters.
    """
    decoder = filters.extras.get("decoder")
    if decoder is None:
        raise UsageError(f"{learner.name} keeps no dictionary: name a learner that does, as psd")
    atoms = decoder.flatten(1).T
    # A learner may keep atoms of any norm. One λ means the same for all of them at unit norms; a dead atom stays 0.
    norms: Tensor = atoms.norm(dim=0)
    return atoms / norms.clamp_min(1e-12)


def make_encoder(learner: FilterLearner, filters: Filters) -> nn.Module:
    """Return the learner's encoder of grey images, a module in evaluation mode."""
    return learner.encoder(filters, make_full_table(1)).eval()


@torch.no_grad()
def predict_codes(encoder: nn.Module, rows: Tensor, size: int) -> Tensor:
    """Return the codes [n, maps] that an encoder predicts for patches [n, size²]."""
    # A patch as large as the filters gives maps of one position: its codes.
    blocks = torch.split(rows.view(-1, 1, size, size), BLOCK)
    return torch.cat([encoder(block).flatten(1) for block in blocks])
