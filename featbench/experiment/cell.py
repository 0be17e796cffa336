"""A cell: everything that decides one score, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from featbench.data.maps import Preprocessing
from featbench.evaluation.regimes import REGIMES, Regime
from featbench.operations.precision import Precision
from featbench.parameters import Choice
from featbench.refinement.settings import Refinement
from featbench.types import Test


@dataclass(frozen=True, kw_only=True)
class Cell:
    """dataset × protocol × architecture × learner × regime × classifier × draw, with what the protocol fixes.

    `experiment.variations` says of each field whether the rows of a table can differ in it, and how that is shown. The
    fields come in the order of a row's columns.

    architecture: canonical text, "" for learners that take none. train_per_class, test_per_class: None for all.
    unlabelled: folder of images, or data set, to learn from instead of the training images, or, after `training+`,
    besides them; or None. device: cpu or cuda. precision: what features are extracted with, and on CUDA refined.
    refinement: settings of the `+` of regimes, None without it. metric, task: by name. skip: why it makes no sense.
    """

    dataset: str
    protocol: str
    train_per_class: int | None
    test_per_class: int | None
    architecture: str
    learner: Choice
    regime: Regime
    classifier: str
    metric: str
    unlabelled: str | None = None
    device: str
    precision: Precision = "float32"
    refinement: Refinement | None = None
    seed: int
    draw: int
    preprocessing: Preprocessing
    validation_fraction: float
    test: Test
    task: str = "classification"
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
        # JSON knows lists alone: the values that a choice leaves open must be a tuple again, to be hashed and compared.
        parameters = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.pop("parameters").items()}
        fields["learner"] = Choice.of(fields["learner"], parameters)
        fields["preprocessing"] = Preprocessing(**fields["preprocessing"])
        settings = fields.get("refinement")
        fields["refinement"] = None if settings is None else Refinement(**settings)
        fields["regime"] = REGIMES[fields["regime"]]
        return cls(**fields)
