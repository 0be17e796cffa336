"""The embedded default: few labels, small images, no download."""

from __future__ import annotations

from featbench.data.maps import Preprocessing
from featbench.evaluation.protocol import Protocol
from featbench.hookspecs import hookimpl

DIGITS = Protocol(
    name="digits",
    summary="8×8 digits, 10 labels per class, one small stage",
    dataset="digits",
    architecture="32F3-Rabs-N3-PA2/2",
    preprocessing=Preprocessing(),
    train_per_class=10,
    test="rest",
    features=("random", "gabor", "psd"),
    validation_fraction=0.3,
    refinement="epochs=40,patience=12,rate=0.01,head_rate=0.03",
    source="featbench's own",
)


@hookimpl
def featbench_protocols() -> list[Protocol]:
    """Register the protocol."""
    return [DIGITS]
