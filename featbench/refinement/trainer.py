"""Stochastic gradient descent on an extractor and its classifier layer, which can be stopped at any batch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featbench.refinement.checkpoint import Checkpoint, Snapshot
from featbench.refinement.gradients import Examples, Gradients
from featbench.refinement.progress import Progress, TrainingProgress
from featbench.refinement.settings import Refinement
from featbench.refinement.training_state import TrainingState, ValidationScore
from featbench.system.seeds import derive_seed

CHECKPOINT_INTERVAL = 30.0
"""Seconds between two checkpoints."""

FP16_LOSS_SCALE = 2.0**13
"""What the loss is multiplied by in fp16, at first.

Its smallest number is 6e-8, and gradients below it would be lost; times this scale they survive. A power of two scales
without rounding. Where a gradient overflows (beyond 65,504) the scale is halved (Micikevicius et al. 2018, Mixed
precision training, section 3.2).
"""

Score = Callable[[], ValidationScore]
"""Scores the network as it is on the validation images."""


class Trainer:
    """Trains the network and the classifier layer of `gradients`, from the weights that they have.

    state: how far the run is. best_network: the network's parameters and buffers in the epoch with the best score.
    """

    def __init__(
        self, state: TrainingState, settings: Refinement, gradients: Gradients, *, seed: int, progress: Progress
    ) -> None:
        self.state, self.settings, self.gradients, self.seed = state, settings, gradients, seed
        self.network, self.layer = gradients.network, gradients.layer
        self.best_network: dict[str, Tensor] = {}
        if _computes_in_fp16(gradients):
            self.state.loss_scale = FP16_LOSS_SCALE
        self._progress = progress
        self._checkpointed = -math.inf
        self._filters = [p for p in self.network.parameters() if p.requires_grad]
        self._optimizer = self._make_optimizer()

    def run(self, epochs: int, training: Examples, score: Score | None, checkpoint: Checkpoint) -> None:
        """Train until `epochs` are done or, where there is a `score`, `patience` epochs have not improved it.

        Raises `DivergedError` if the loss is not finite.
        """
        began, earlier = time.monotonic(), self.state.seconds
        progress = TrainingProgress(self._progress, epochs, len(training), self.settings.batch)
        while not self.state.finished:
            batches = self._draw_batches(len(training))
            for images in batches[self.state.batch :]:
                self._step(training, images)
                self.state.batch += 1
                progress.after_batch(self.state, len(batches), len(images))
                self.state.seconds = earlier + time.monotonic() - began
                self._write_snapshot(checkpoint)
            self._end_epoch(epochs, score)
            self._write_snapshot(checkpoint)

    def keep_start(self, score: ValidationScore) -> None:
        """Keep the network as it is, with its score, as the best so far."""
        self._keep_if_better(0, score)

    def resume(self, snapshot: Snapshot) -> None:
        """Go on from a snapshot."""
        self.state = snapshot.state
        self.gradients.pieces = snapshot.state.pieces
        self.network.load_state_dict(snapshot.network)
        self.layer.load_state_dict(snapshot.layer)
        self.best_network = snapshot.best_network
        # Rates and decay are those of the settings: only what the optimizer accumulated comes from the snapshot.
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": snapshot.optimizer, "param_groups": groups})

    def _draw_batches(self, count: int) -> list[NDArray[np.int64]]:
        """Return the batches of the present epoch, each the positions of its images in the training set."""
        # A generator for each epoch: no generator's state has to be kept in a checkpoint.
        order = np.random.default_rng(derive_seed(self.seed, "refine", self.state.epoch)).permutation(count)
        # Of sizes as equal as can be: a last batch of an image or two would weigh as much as a full one.
        return np.array_split(order, -(-count // self.settings.batch))

    def _step(self, training: Examples, images: NDArray[np.int64]) -> None:
        """Take a step of the optimizer along the gradient of a batch."""
        state, settings = self.state, self.settings
        factor = settings.compute_rate_factor(state.epoch)
        for group, rate in zip(self._optimizer.param_groups, (settings.rate, settings.head_rate), strict=True):
            group["lr"] = rate * factor
        self.network.train()  # scoring left it in evaluation mode
        # With the numbers of the images it decides on distortions and dropout: no generator's state is carried along.
        seed = derive_seed(self.seed, "batch", state.epoch)
        state.loss_sum += self.gradients(training[torch.from_numpy(images)], images, seed, state.loss_scale)
        # A parameter that the loss does not depend on has no gradient; the optimizer leaves it alone, decay included.
        parameters = [p for p in (*self._filters, *self.layer.parameters()) if p.grad is not None]
        if not self._unscale(parameters):
            return
        if settings.l1:
            # The subgradient of Σ|w|. Biases and gains, which have one dimension, are not penalised.
            for parameter in parameters:
                if parameter.ndim > 1:
                    parameter.grad.add_(parameter.detach().sign(), alpha=settings.l1)  # type: ignore[union-attr]
        if settings.clip:
            nn.utils.clip_grad_norm_(parameters, settings.clip)
        self._optimizer.step()

    def _unscale(self, parameters: list[nn.Parameter]) -> bool:
        """Divide the gradients by fp16's loss scale; False where they overflowed, so that the step has to be skipped.

        At a scale of 1 there is nothing left to halve: gradients that overflow there make the weights, and then the
        loss, infinite, which is divergence.
        """
        if self.state.loss_scale == 1.0:
            return True
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not all(bool(torch.isfinite(gradient).all()) for gradient in gradients):
            self.state.loss_scale /= 2
            return False
        # Before clipping and penalties, which are meant for gradients of the true size.
        for gradient in gradients:
            gradient.div_(self.state.loss_scale)
        return True

    def _end_epoch(self, epochs: int, score: Score | None) -> None:
        state = self.state
        if score is not None:
            self._keep_if_better(state.epoch, score())
        is_patient = score is None or state.epoch - state.best_epoch < self.settings.patience
        state.finished = state.epoch >= epochs or not is_patient
        if not state.finished:
            # Only now: a finished run keeps the numbers of its last epoch, from which reports are made.
            state.epoch, state.batch, state.loss_sum = state.epoch + 1, 0, 0.0

    def _keep_if_better(self, epoch: int, score: ValidationScore) -> None:
        if score > self.state.best_score:
            self.state.best_epoch, self.state.best_score = epoch, score
            # Cloned, since training writes to the same memory; on the CPU, so that a GPU holds the network once.
            tensors = self.network.state_dict().items()
            self.best_network = {name: tensor.detach().cpu().clone() for name, tensor in tensors}

    def _write_snapshot(self, checkpoint: Checkpoint) -> None:
        """Write a snapshot of training if the last one is old enough; the first is written after the first batch."""
        now = time.monotonic()
        if now - self._checkpointed < CHECKPOINT_INTERVAL:
            return
        self._checkpointed = now
        # A batch that did not fit into the memory would not fit again, and other pieces would round otherwise.
        self.state.pieces = self.gradients.pieces
        optimizer = {
            number: {name: torch.as_tensor(value) for name, value in state.items() if value is not None}
            for number, state in self._optimizer.state_dict()["state"].items()
        }
        network, layer = self.network.state_dict(), self.layer.state_dict()
        Snapshot(self.state, network, layer, self.best_network, optimizer).write(checkpoint)

    def _make_optimizer(self) -> torch.optim.Optimizer:
        settings = self.settings
        groups: list[dict[str, Any]] = [
            {"params": self._filters, "lr": settings.rate},
            {"params": list(self.layer.parameters()), "lr": settings.head_rate},
        ]
        if settings.optimizer == "adamw":
            return torch.optim.AdamW(groups, weight_decay=settings.decay)
        return torch.optim.SGD(groups, momentum=settings.momentum, weight_decay=settings.decay)


def _computes_in_fp16(gradients: Gradients) -> bool:
    return gradients.device.type == "cuda" and gradients.trained.precision == "fp16"
