"""Supervised refinement (R+, U+): back-propagation through the whole extractor and a classifier layer."""

from __future__ import annotations

import copy
import logging
import math
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from featbench.devices.batches import Batches
from featbench.errors import LearningError
from featbench.operations.precision import Precision
from featbench.refinement.classifier_layer import PENALTIES, Head, HiddenLayer, fit
from featbench.refinement.descent import Arrays, Checkpoint, Descent, NoCheckpoint, Progress
from featbench.refinement.gradients import DivergedError, Examples, Gradients
from featbench.refinement.settings import Refinement
from featbench.system.seeds import derive_seed, seeded
from featbench.system.threads import in_one_thread
from featbench.types import IntArray

log = logging.getLogger("featbench")

SLOWDOWNS = (1, 4, 16, 64)
"""What the rates are divided by, in turn, where refinement diverges: features of any scale can be refined."""

BLOCK = 256
"""Images whose features are computed together."""

Found = tuple[Arrays, dict[str, Any]] | None
"""What a checkpoint holds, if anything."""

SEARCH, REFIT = "refining", "refining on all"
"""The two runs of training: the one in which validation images decide on the epochs, and the one on all images."""


def refine(
    network: nn.Module,
    maps: Tensor,
    labels: IntArray,
    validation: NDArray[np.bool_],
    *,
    classes: int,
    seed: int,
    device: torch.device,
    settings: Refinement | None = None,
    precision: Precision = "float32",
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """Refine `network` on maps [t, ...] with labels [t]; return it, with a hidden layer if asked for, and a report.

    Rows marked in `validation` [t] are not trained on: the weights with the best score on them are kept, those of the
    start included; with `refit` it then starts anew on all rows for as many epochs. Where the loss ceases to be finite,
    it starts anew with smaller rates. On a CPU the weights are the same to the last bit whatever the number of threads,
    unless the network is one that `TrainedNetwork.by_image` does not vouch for.
    `checkpoint` is asked where an earlier run was, and told where this one is.

    Raises `LearningError` if there is nothing to refine, no validation image, or if it diverges at the smallest rates;
    `DeviceError` if one image does not fit into the memory.
    """
    settings = settings or Refinement()
    if validation.all() or not validation.any():
        raise LearningError(
            "refinement needs training images and validation images: hold some out, as the protocol's "
            "validation_fraction says, and take at least 2 training images of each class"
        )
    network.to(device)
    marks, labelled = torch.from_numpy(validation), Examples(maps, torch.from_numpy(labels))
    refiner = _Refiner(
        network, settings, classes, seed, device, precision, progress or _silent, checkpoint or NoCheckpoint()
    )
    return refiner.refine(labelled, marks)


class _Refiner:
    """One refinement: what its runs share."""

    def __init__(
        self,
        network: nn.Module,
        settings: Refinement,
        classes: int,
        seed: int,
        device: torch.device,
        precision: Precision,
        progress: Progress,
        checkpoint: Checkpoint,
    ) -> None:
        self.network, self.settings, self.classes, self.seed = network, settings, classes, seed
        self.device, self.precision, self.progress, self.checkpoint = device, precision, progress, checkpoint

    def refine(self, labelled: Examples, held_out: Tensor) -> tuple[nn.Module, dict[str, Any]]:
        training, validation = labelled[~held_out], labelled[held_out]
        features = self._finite_features(training)
        if self.settings.hidden:
            self.network = with_hidden(self.network, features.shape[1], self.settings, self.seed).to(self.device)
            self.network[1].standardised.fit(features)  # type: ignore[union-attr, operator]
            features = self._finite_features(training)
        require_gradients(self.network, labelled.maps[:2].to(self.device))
        self.start = {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}
        self.layer = Head(features.shape[1], self.classes).to(self.device)
        self.layer.standardised.fit(features)
        found = self.checkpoint.read()
        earlier = float(found[1]["seconds"]) if found else 0.0
        if found is None or found[1]["run"] == SEARCH:
            before = self._fit_layer(features, training, validation)
            del features
            report = self._search(before, training, validation, found)
            found = None
        else:
            report = dict(found[1]["report"])
        if self.settings.refit and report["best_epoch"]:
            self._refit(report, labelled, found)
        return self.network.eval(), {**report, **({"seconds_before": earlier} if earlier else {})}

    def _search(
        self, before: tuple[float, float], training: Examples, validation: Examples, found: Found
    ) -> dict[str, Any]:
        """Train until the validation score no longer becomes better; anew at smaller rates where it diverges."""
        for slowdown in SLOWDOWNS:
            if found is not None and found[1]["slowdown"] != slowdown:
                continue
            descent = self._descent(SEARCH, slowdown, {}, found)
            found = None
            if descent.place.fresh:
                descent.start(before)
            score = partial(self._score, descent.head, validation)
            try:
                descent.run(self.settings.epochs, training, score, self.checkpoint)
            except DivergedError:
                rates = descent.settings.rate, descent.settings.head_rate
                then = "" if slowdown == SLOWDOWNS[-1] else ": it starts anew with smaller ones"
                log.warning("refinement diverged at rate %g, head_rate %g%s", *rates, then)
                continue
            self.network.load_state_dict(descent.kept)
            return {
                "epochs": descent.place.epoch,
                "best_epoch": descent.place.best_epoch,
                "rate": descent.settings.rate,
                "validation_before": 100 * before[0],
                "validation_after": 100 * descent.place.best[0],
            }
        raise LearningError(
            f"refinement diverged at every learning rate tried, the least {self.settings.rate / SLOWDOWNS[-1]:g}: the "
            "loss is not finite; try smaller ones, or clipped gradients, as in "
            f"--refine rate={self.settings.rate / 1000:g},head_rate={self.settings.head_rate / 1000:g},clip=1"
        )

    def _refit(self, report: dict[str, Any], labelled: Examples, found: Found) -> None:
        """Train on all images, from the start, for as many epochs as were best."""
        descent = self._descent(REFIT, self.settings.rate / report["rate"], {"report": report}, found)
        with suppress(DivergedError):
            descent.run(report["best_epoch"], labelled, None, self.checkpoint)
        if not (descent.place.finished and all(bool(torch.isfinite(p).all()) for p in self.network.parameters())):
            raise LearningError(
                f"refinement diverged on all training images at rate {descent.settings.rate:g}, and had not without "
                "those for validation: try a smaller one, clip=1, or none on all, as in --refine refit=false"
            )
        report["train_loss"] = descent.loss

    def _descent(self, run: str, slowdown: float, about: dict[str, Any], found: Found) -> Descent:
        """Make a run of training, at its start or where a checkpoint was made."""
        self.network.load_state_dict(self.start)
        head = copy.deepcopy(self.layer)
        settings = replace(
            self.settings, rate=self.settings.rate / slowdown, head_rate=self.settings.head_rate / slowdown
        )
        gradients = Gradients(self.network, head, self.device, self.precision, settings.augmentation)
        descent = Descent(
            run, head, settings, gradients, {"slowdown": slowdown, **about}, seed=self.seed, progress=self.progress
        )
        if found is not None:
            descent.resume(*found)
        return descent

    def _fit_layer(self, features: Tensor, training: Examples, validation: Examples) -> tuple[float, float]:
        """Fit the classifier layer to the network as it is at the start, and return its validation score.

        The start is then scored as fairly as what follows, and the first steps do not spoil it for a layer that knows
        nothing: from a layer of zeros, one stage on Caltech-101 lost 20 points in its first epoch and never recovered.
        A layer that fits all too well leaves nothing to learn: validation images choose its penalty.
        """
        labels = training.labels.to(self.device)
        layer, best = self.layer, (-2.0, -math.inf)
        for number, penalty in enumerate(PENALTIES):
            self.progress("fitting a layer to the start", number, len(PENALTIES))
            # Threads that share an operation round otherwise, and wait for one another.
            in_one_thread(partial(fit, layer, features, labels, penalty))
            score = self._score(layer, validation)
            if score > best:
                self.layer, best = copy.deepcopy(layer), score
        return best

    def _finite_features(self, examples: Examples) -> Tensor:
        features = self._features(examples)
        if not bool(torch.isfinite(features).all()):
            raise LearningError(
                "refinement cannot start: the loss is not finite, since features of training images are not"
            )
        return features

    @torch.no_grad()
    def _features(self, examples: Examples) -> Tensor:
        batches = Batches(self.network, self.device)
        parts = [batches.launch(maps)().flatten(1) for maps in torch.split(examples.maps, BLOCK)]
        return torch.cat(parts).to(self.device)

    @torch.no_grad()
    def _score(self, head: Head, examples: Examples) -> tuple[float, float]:
        """Return accuracy, and minus the loss to break ties: larger is better; a net that has gone astray is worst."""
        logits, labels = head(self._features(examples)), examples.labels.to(self.device)
        loss = functional.cross_entropy(logits, labels)
        if not bool(torch.isfinite(loss)):
            return -1.0, -math.inf
        return float((logits.argmax(dim=1) == labels).float().mean()), -float(loss)


def with_hidden(network: nn.Module, features: int, settings: Refinement, seed: int) -> nn.Sequential:
    """Set the hidden layer of `settings` on a network that gives so many features."""
    return nn.Sequential(network, HiddenLayer(features, settings.hidden, derive_seed(seed, "hidden")))


def require_gradients(network: nn.Module, maps: Tensor) -> None:
    """Raise a `LearningError` if no parameter of the network learns from maps [n, ...]."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not parameters:
        raise LearningError("the extractor has no parameters to refine")
    training = network.training
    with torch.enable_grad(), seeded(0):
        features = network.eval()(maps)
        followed = features.requires_grad
        if followed:
            found = torch.autograd.grad(features.float().square().sum(), parameters, allow_unused=True)
            followed = any(gradient is not None for gradient in found)
    network.train(training)
    if not followed:
        raise LearningError(
            "the extractor cannot be refined: no gradient reaches its parameters (a step of it is not differentiable)"
        )


def _silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""
