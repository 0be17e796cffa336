"""Supervised refinement (R+, U+): back-propagation through the whole extractor and a classifier layer."""

from __future__ import annotations

import copy
import logging
from contextlib import suppress
from dataclasses import dataclass, field, replace
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
from featbench.refinement.checkpoint import Checkpoint, NoCheckpoint, Snapshot, Tensors
from featbench.refinement.classifier_layer import (
    PENALTIES,
    ClassifierLayer,
    HiddenLayer,
    add_hidden_layer,
    fit_classifier_layer,
)
from featbench.refinement.gradients import DivergedError, Examples, Gradients, require_gradients
from featbench.refinement.progress import Progress, ignore_progress
from featbench.refinement.settings import Refinement
from featbench.refinement.trainer import Trainer
from featbench.refinement.training_state import (
    NO_SCORE,
    REFIT,
    SEARCH,
    RefinementReport,
    TrainingState,
    ValidationScore,
)
from featbench.system.threads import run_in_one_thread
from featbench.types import IntArray

log = logging.getLogger("featbench")

SLOWDOWNS = (1, 4, 16, 64)
"""What the rates are divided by, in turn, where refinement diverges: features of any scale can be refined."""

BLOCK = 256
"""Images whose features are computed together."""


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
    """Refine `network` with the labels of training images; return it and a report.

    The weights with the best score on the validation images are kept, those of the start included. With `refit` of the
    settings, training then starts again on all images, for as many epochs. Where the loss ceases to be finite, it
    starts again with smaller rates. On a CPU the weights are the same to the last bit whatever the number of threads,
    unless `TrainedNetwork.is_per_image` is false for the network.

    Parameters
    ----------
    network : nn.Module
        Takes maps to features; changed in place.
    maps : Tensor, [t, ...]
        Preprocessed training images, on a CPU.
    labels : array of int, [t]
        Their classes, from 0.
    validation : array of bool, [t]
        Which images are held out for validation, and not trained on.
    classes : int
        The number of classes.
    seed : int
        Decides on the order of images, their distortions, dropout, and the weights of a hidden layer.
    device : torch.device
        Where to compute. The network is moved there.
    settings : Refinement, optional
        Defaults to `Refinement()`.
    precision : str, default "float32"
        What filter banks multiply in on CUDA. On a CPU it is float32 throughout.
    progress : Progress, optional
        Called with what is being done, how much is finished, and out of how much.
    checkpoint : Checkpoint, optional
        Where snapshots are written. If it holds one, of the same network, images, seed and settings, training goes on
        from there and ends with the same bits.

    Returns
    -------
    network : nn.Module
        The network in evaluation mode, followed by a hidden layer if the settings ask for one.
    report : dict
        The fields of `RefinementReport`; with a checkpoint that was read, also `seconds_before`, which training took
        before that.

    Raises
    ------
    LearningError
        If there is nothing to refine, no validation image, or if training diverges at the smallest rates.
    DeviceError
        If one image does not fit into the memory.
    """
    if validation.all() or not validation.any():
        raise LearningError(
            "refinement needs training images and validation images: hold some out, as the protocol's "
            "validation_fraction says, and take at least 2 training images of each class"
        )
    refiner = _Refiner(
        network=network.to(device),
        settings=settings or Refinement(),
        classes=classes,
        seed=seed,
        device=device,
        precision=precision,
        progress=progress or ignore_progress,
        checkpoint=checkpoint or NoCheckpoint(),
    )
    return refiner.refine(Examples(maps, torch.from_numpy(labels)), torch.from_numpy(validation))


@dataclass
class _Refiner:
    """One refinement: what its runs of training share.

    layer: the classifier layer fitted to the network as it is at the start. start: the weights of that network.
    """

    network: nn.Module
    settings: Refinement
    classes: int
    seed: int
    device: torch.device
    precision: Precision
    progress: Progress
    checkpoint: Checkpoint
    layer: ClassifierLayer = field(init=False)
    start: Tensors = field(init=False)

    def refine(self, labelled: Examples, held_out: Tensor) -> tuple[nn.Module, dict[str, Any]]:
        """Refine the network on images of which those marked in `held_out` [t] are for validation."""
        training, validation = labelled[~held_out], labelled[held_out]
        features = self._compute_finite_features(training)
        if self.settings.hidden:
            self._add_hidden_layer(features)
            features = self._compute_finite_features(training)
        require_gradients(self.network, labelled.maps[:2].to(self.device))
        # Cloned: every run of training starts from these weights, and writes to the network's own.
        self.start = {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}
        self.layer = ClassifierLayer(features.shape[1], self.classes).to(self.device)
        self.layer.standardisation.fit(features)
        snapshot = Snapshot.read(self.checkpoint)
        seconds_before = snapshot.state.seconds if snapshot else 0.0
        if snapshot is not None and snapshot.state.search is not None:
            report = self._refit(snapshot.state.search, labelled, snapshot)
        else:
            before = self._fit_layer(features, training, validation)
            del features  # as large as all training images or larger, and not needed while the network is trained
            report = self._search(before, training, validation, snapshot)
            if self.settings.refit and report.best_epoch:
                report = self._refit(report, labelled, None)
        resumed = {"seconds_before": seconds_before} if seconds_before else {}
        return self.network.eval(), {**report.to_document(), **resumed}

    def _add_hidden_layer(self, features: Tensor) -> None:
        """Put the hidden layer of the settings behind the network, standardised for these features [t, d]."""
        network = add_hidden_layer(self.network, features.shape[1], self.settings.hidden, self.seed).to(self.device)
        hidden = network[1]
        assert isinstance(hidden, HiddenLayer)  # just added
        hidden.standardisation.fit(features)
        self.network = network

    def _search(
        self, before: ValidationScore, training: Examples, validation: Examples, snapshot: Snapshot | None
    ) -> RefinementReport:
        """Train until the validation score no longer improves; again at smaller rates where it diverges."""
        for slowdown in SLOWDOWNS:
            if snapshot is not None and snapshot.state.slowdown != slowdown:
                continue  # diverged before the snapshot was written
            trainer = self._make_trainer(TrainingState(SEARCH, slowdown), snapshot)
            snapshot = None  # a run at smaller rates starts at the beginning
            if trainer.state.is_fresh:
                trainer.keep_start(before)
            score = partial(self._score, trainer.layer, validation)
            try:
                trainer.run(self.settings.epochs, training, score, self.checkpoint)
            except DivergedError:
                rates = trainer.settings.rate, trainer.settings.head_rate
                then = "" if slowdown == SLOWDOWNS[-1] else ": it starts again with smaller ones"
                log.warning("refinement diverged at rate %g, head_rate %g%s", *rates, then)
                continue
            self.network.load_state_dict(trainer.best_network)
            return RefinementReport(
                epochs=trainer.state.epoch,
                best_epoch=trainer.state.best_epoch,
                rate=trainer.settings.rate,
                validation_before=100 * before.accuracy,
                validation_after=100 * trainer.state.best_score.accuracy,
            )
        raise LearningError(
            f"refinement diverged at every learning rate tried, the least {self.settings.rate / SLOWDOWNS[-1]:g}: the "
            "loss is not finite; try smaller ones, or clipped gradients, as in "
            f"--refine rate={self.settings.rate / 1000:g},head_rate={self.settings.head_rate / 1000:g},clip=1"
        )

    def _refit(self, search: RefinementReport, labelled: Examples, snapshot: Snapshot | None) -> RefinementReport:
        """Train on all images, from the start, for as many epochs as were best in the search."""
        slowdown = self.settings.rate / search.rate
        trainer = self._make_trainer(TrainingState(REFIT, slowdown, search), snapshot)
        with suppress(DivergedError):
            trainer.run(search.best_epoch, labelled, None, self.checkpoint)
        # No validation score watches over a refit, so the weights themselves are looked at.
        if not (trainer.state.finished and all(bool(torch.isfinite(p).all()) for p in self.network.parameters())):
            raise LearningError(
                f"refinement diverged on all training images at rate {trainer.settings.rate:g}, and had not without "
                "those for validation: try a smaller one, clip=1, or none on all, as in --refine refit=false"
            )
        return replace(search, train_loss=trainer.state.mean_loss)

    def _make_trainer(self, state: TrainingState, snapshot: Snapshot | None) -> Trainer:
        """Make the trainer of a run, at the start of it or where a snapshot was written."""
        self.network.load_state_dict(self.start)
        # Copied: each run trains a layer of its own, from the one that was fitted.
        layer = copy.deepcopy(self.layer)
        rate, head_rate = self.settings.rate / state.slowdown, self.settings.head_rate / state.slowdown
        settings = replace(self.settings, rate=rate, head_rate=head_rate)
        gradients = Gradients(self.network, layer, self.device, self.precision, settings.augmentation)
        trainer = Trainer(state, settings, gradients, seed=self.seed, progress=self.progress)
        if snapshot is not None:
            trainer.resume(snapshot)
        return trainer

    def _fit_layer(self, features: Tensor, training: Examples, validation: Examples) -> ValidationScore:
        """Fit the classifier layer to the network as it is at the start, and return its validation score.

        The start is then scored as fairly as what follows, and the first steps do not spoil it for a layer that knows
        nothing: from a layer of zeros, one stage on Caltech-101 lost 20 points in its first epoch and never recovered.
        A layer that fits all too well leaves nothing to learn: validation images choose its penalty.
        """
        labels = training.labels.to(self.device)
        layer, best = self.layer, None
        for number, penalty in enumerate(PENALTIES):
            self.progress("fitting a layer to the start", number, len(PENALTIES))
            # Threads that share an operation round by their number, and wait for one another.
            run_in_one_thread(partial(fit_classifier_layer, layer, features, labels, penalty))
            score = self._score(layer, validation)
            if best is None or score > best:
                # The next fit goes on from the weights of this one, in `layer` itself.
                self.layer, best = copy.deepcopy(layer), score
        assert best is not None  # there is a penalty
        return best

    def _compute_finite_features(self, examples: Examples) -> Tensor:
        features = self._compute_features(examples)
        if not bool(torch.isfinite(features).all()):
            raise LearningError(
                "refinement cannot start: the loss is not finite, since features of training images are not"
            )
        return features

    @torch.no_grad()
    def _compute_features(self, examples: Examples) -> Tensor:
        """Return the features [n, d] of images."""
        batches = Batches(self.network, self.device)
        parts = [batches.launch(maps)().flatten(1) for maps in torch.split(examples.maps, BLOCK)]
        return torch.cat(parts).to(self.device)

    @torch.no_grad()
    def _score(self, layer: ClassifierLayer, examples: Examples) -> ValidationScore:
        """Score the network with a classifier layer; one whose loss is not finite is worse than any other."""
        logits, labels = layer(self._compute_features(examples)), examples.labels.to(self.device)
        loss = functional.cross_entropy(logits, labels)
        if not bool(torch.isfinite(loss)):
            # Logits of NaN would all be class 0 by argmax, and right about the images of that class.
            return NO_SCORE
        return ValidationScore(float((logits.argmax(dim=1) == labels).float().mean()), -float(loss))
