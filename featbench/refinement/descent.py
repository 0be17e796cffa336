"""Stochastic gradient descent that can be stopped and taken up again: its state, its steps, its checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from featbench.refinement.classifier_layer import Head
from featbench.refinement.gradients import DivergedError, Examples, Gradients
from featbench.refinement.settings import Refinement
from featbench.system.seeds import derive_seed

INTERVAL = 30.0
"""Seconds between two checkpoints."""

SHOWN = 0.5
"""Seconds between two reports of progress."""

Arrays = dict[str, NDArray[Any]]

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is finished, and out of how much."""


class Checkpoint(Protocol):
    """Where training is kept while it lasts."""

    def read(self) -> tuple[Arrays, dict[str, Any]] | None:
        """Return the arrays and what was said of them, or None."""

    def write(self, arrays: Arrays, about: Mapping[str, Any]) -> None:
        """Keep arrays, and what is said of them as JSON, in place of what was kept."""


class NoCheckpoint:
    """Keeps nothing."""

    def read(self) -> None:
        """Return None."""

    def write(self, arrays: Arrays, about: Mapping[str, Any]) -> None:
        """Do nothing."""


@dataclass
class Place:
    """How far training is: in which run of it, in which epoch, after how many batches of it.

    loss: sum of the losses of these batches. best_epoch and best, accuracy and minus the log-loss, are those of the
    epoch whose weights are kept. scale: of the loss in fp16. seconds: all that training
    took so far.
    """

    run: str
    epoch: int = 1
    batch: int = 0
    loss: float = 0.0
    best_epoch: int = 0
    best: tuple[float, float] = (-1.0, -math.inf)
    scale: float = 1.0
    finished: bool = False
    seconds: float = 0.0

    @property
    def fresh(self) -> bool:
        """Whether nothing has been done yet."""
        return self.epoch == 1 and self.batch == 0


class Descent:
    """Trains network and head from where they are.

    `place` says how far it is, `kept` is the best state so far, `loss` the mean of the last epoch; `about` goes into
    checkpoints.
    """

    def __init__(
        self,
        run: str,
        head: Head,
        settings: Refinement,
        gradients: Gradients,
        about: Mapping[str, Any],
        *,
        seed: int,
        progress: Progress,
    ) -> None:
        self.network, self.head, self.settings, self.gradients, self.seed = (
            gradients.network,
            head,
            settings,
            gradients,
            seed,
        )
        self.about, self.loss = about, math.nan
        self.place = Place(run, scale=2.0**13 if _halves_overflow(gradients) else 1.0)
        self.kept: dict[str, Tensor] = {}
        self._progress = progress
        self._said = self._written = 0.0
        self._filters = [p for p in self.network.parameters() if p.requires_grad]
        self._optimizer = self._make_optimizer()

    def run(
        self,
        epochs: int,
        training: Examples,
        score: Callable[[], tuple[float, float]] | None,
        checkpoint: Checkpoint,
    ) -> None:
        """Train until `epochs` are done, or `patience` is out where there is a `score` to become better.

        Raises `DivergedError`.
        """
        began, earlier = time.monotonic(), self.place.seconds
        pace = _Pace()
        while not self.place.finished:
            place = self.place
            batches = self._batches(len(training))
            for index in range(place.batch, len(batches)):
                self._step(training, batches[index])
                place.batch = index + 1
                self._say(epochs, len(batches), pace.after(len(batches[index])), len(training))
                place.seconds = earlier + time.monotonic() - began
                self._keep(checkpoint)
            self._end_epoch(epochs, score)
            self._keep(checkpoint)

    def _batches(self, count: int) -> list[NDArray[np.int64]]:
        order = np.random.default_rng(derive_seed(self.seed, "refine", self.place.epoch)).permutation(count)
        # Of sizes as equal as can be: a last batch of an image or two would weigh as much as a full one.
        return np.array_split(order, -(-count // self.settings.batch))

    def _step(self, training: Examples, images: NDArray[np.int64]) -> None:
        place, settings = self.place, self.settings
        factor = settings.factor(place.epoch)
        for group, rate in zip(self._optimizer.param_groups, (settings.rate, settings.head_rate), strict=True):
            group["lr"] = rate * factor
        self.network.train()
        seed = derive_seed(self.seed, "batch", place.epoch)
        place.loss += self.gradients(training[torch.from_numpy(images)], images, seed, place.scale)
        parameters = [p for p in (*self._filters, *self.head.parameters()) if p.grad is not None]
        if not self._unscale(parameters):
            return
        if settings.l1:
            for parameter in parameters:
                if parameter.ndim > 1:
                    parameter.grad.add_(parameter.detach().sign(), alpha=settings.l1)  # type: ignore[union-attr]
        if settings.clip:
            nn.utils.clip_grad_norm_(parameters, settings.clip)
        self._optimizer.step()

    def _unscale(self, parameters: list[nn.Parameter]) -> bool:
        """Take the scale of fp16 out of the gradients; False where they overflowed: then it is halved for the next."""
        if self.place.scale == 1.0:
            return True
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not all(bool(torch.isfinite(gradient).all()) for gradient in gradients):
            if self.place.scale < 2.0**-10:
                raise DivergedError
            self.place.scale /= 2
            return False
        for gradient in gradients:
            gradient.div_(self.place.scale)
        return True

    def _end_epoch(self, epochs: int, score: Callable[[], tuple[float, float]] | None) -> None:
        place = self.place
        self.loss = place.loss / place.batch
        if score is not None:
            self._consider(place.epoch, score())
        patient = score is None or place.epoch - place.best_epoch < self.settings.patience
        place.finished = place.epoch >= epochs or not patient
        if not place.finished:
            place.epoch, place.batch, place.loss = place.epoch + 1, 0, 0.0

    def _consider(self, epoch: int, score: tuple[float, float]) -> None:
        if score > self.place.best:
            self.place.best_epoch, self.place.best = epoch, score
            self.kept = {name: tensor.detach().cpu().clone() for name, tensor in self.network.state_dict().items()}

    def start(self, score: tuple[float, float]) -> None:
        """Take the network as it is for the best so far."""
        self._consider(0, score)

    def _say(self, epochs: int, batches: int, pace: float, images: int) -> None:
        place, now = self.place, time.monotonic()
        if now - self._said < SHOWN and place.batch < batches:
            return
        self._said = now
        left = ((epochs - place.epoch) * images + (batches - place.batch) * self.settings.batch) / pace
        far = "" if math.isnan(pace) else f", {pace:.0f} images/s, {_time(left)} left"
        best = "" if place.best_epoch == 0 and place.best[0] < 0 else f", validation {100 * place.best[0]:.1f} %"
        what = f"{place.run}: loss {place.loss / place.batch:.3f}{best}{far}, epoch"
        self._progress(what, place.epoch, epochs)

    # Checkpoints.

    def _keep(self, checkpoint: Checkpoint) -> None:
        if time.monotonic() - self._written < INTERVAL and self._written:
            return
        self._written = time.monotonic()
        named = {
            **{f"network/{name}": tensor for name, tensor in self.network.state_dict().items()},
            **{f"head/{name}": tensor for name, tensor in self.head.state_dict().items()},
            **{f"kept/{name}": tensor for name, tensor in self.kept.items()},
            **{
                f"optimizer/{index}/{name}": torch.as_tensor(value)
                for index, state in self._optimizer.state_dict()["state"].items()
                for name, value in state.items()
                if value is not None
            },
        }
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in named.items()}
        about = {**self.about, **asdict(self.place), "pieces": self.gradients.pieces}
        checkpoint.write(arrays, {**about, "best": list(map(str, self.place.best))})

    def resume(self, arrays: Arrays, about: Mapping[str, Any]) -> None:
        """Go on where a checkpoint was made."""
        tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        fields = {name: about[name] for name in asdict(self.place)}
        self.place = replace(self.place, **{**fields, "best": tuple(map(float, about["best"]))})
        self.gradients.pieces = int(about["pieces"])
        self.network.load_state_dict(_under("network/", tensors))
        self.head.load_state_dict(_under("head/", tensors))
        self.kept = _under("kept/", tensors)
        states: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under("optimizer/", tensors).items():
            index, _, kind = name.partition("/")
            states.setdefault(int(index), {})[kind] = tensor
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": states, "param_groups": groups})

    def _make_optimizer(self) -> torch.optim.Optimizer:
        settings = self.settings
        groups: list[dict[str, Any]] = [
            {"params": self._filters, "lr": settings.rate},
            {"params": list(self.head.parameters()), "lr": settings.head_rate},
        ]
        if settings.optimizer == "adamw":
            return torch.optim.AdamW(groups, weight_decay=settings.decay)
        return torch.optim.SGD(groups, momentum=settings.momentum, weight_decay=settings.decay)


class _Pace:
    """Images a second since the first batch, during which code is compiled."""

    def __init__(self) -> None:
        self.began, self.images = 0.0, 0

    def after(self, images: int) -> float:
        """Return the pace after some more images; that of the first batch is not known."""
        if not self.began:
            self.began = time.monotonic()
            return math.nan
        self.images += images
        return self.images / max(time.monotonic() - self.began, 1e-9)


def _halves_overflow(gradients: Gradients) -> bool:
    """Whether gradients are computed in fp16, whose least number small ones would fall below."""
    return gradients.device.type == "cuda" and gradients.trained.precision == "fp16"


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
