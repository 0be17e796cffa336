"""A cell: everything that decides one score, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from featbench.preprocess import Preprocessing
from featbench.protocol import Metric
from featbench.regimes import REGIMES, Regime


@dataclass(frozen=True)
class Choice:
    """A learner by name, with the parameters that differ from its defaults."""

    name: str
    parameters: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, name: str, parameters: Mapping[str, Any]) -> Choice:
        """Build a choice; parameters are kept in alphabetical order."""
        return cls(name, tuple(sorted(parameters.items())))

    def __str__(self) -> str:
        inside = ",".join(f"{name}={value}" for name, value in self.parameters)
        return f"{self.name}({inside})" if inside else self.name


@dataclass(frozen=True)
class Cell:
    """dataset × protocol × architecture × learner × regime × classifier × draw, with what the protocol fixes.

    architecture: canonical text, "" for learners that take none. train_per_class: None for all. device: cpu or cuda.
    unlabelled: folder of images to learn from instead of the training images, or None. skip: why it makes no sense.
    """

    protocol: str
    dataset: str
    preprocessing: Preprocessing
    architecture: str
    learner: Choice
    regime: Regime
    classifier: str
    train_per_class: int | None
    validation_fraction: float
    test: Literal["rest", "fixed"]
    metric: Metric
    seed: int
    draw: int
    device: str
    unlabelled: str | None = None
    skip: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.learner} {self.regime.name} {self.classifier} draw {self.draw}"

    def describe(self) -> dict[str, Any]:
        """Return the cell as JSON, for readers of the store."""
        described = {**asdict(self), "learner": self.learner.name, "parameters": dict(self.learner.parameters)}
        described["regime"] = self.regime.name
        del described["skip"]
        return described

    @classmethod
    def restore(cls, described: Mapping[str, Any]) -> Cell:
        """Rebuild a cell from its description."""
        fields = dict(described)
        fields["learner"] = Choice.of(fields["learner"], fields.pop("parameters"))
        fields["preprocessing"] = Preprocessing(**fields["preprocessing"])
        fields["regime"] = REGIMES[fields["regime"]]
        return cls(**fields)
