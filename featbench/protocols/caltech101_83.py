"""Caltech-101 on smaller maps: the variant of Jarrett et al. 2009 that their talks show, 83×83 into the first stage."""

from __future__ import annotations

from featbench.data.maps import Preprocessing
from featbench.evaluation.protocol import Protocol
from featbench.hookspecs import hookimpl

ARCHITECTURES = {
    "talk": "64F9-Rabs-N-PA10/5 > 256F9:16-Rabs-N-PA6/4",
    "relu": "32F5-PM2 > 64F5-PM2 > 128F5-PM2 > 256F6",
}
"""The two stages of the talks, which end in 256 maps of one value; a ConvNet for relu, which ends in as many units."""

CALTECH101_83 = Protocol(
    name="caltech101-83",
    summary="As caltech101-30, with two stages on maps of 83×83: a third of the pixels",
    dataset="caltech101",
    architecture=ARCHITECTURES["talk"],
    architectures=ARCHITECTURES,
    preprocessing=Preprocessing(size=91, standardise=True, lcn=1.0, pad=True),
    train_per_class=30,
    validation_fraction=5 / 30,
    test="rest",
    metric="mean-per-class-accuracy",
    features=("random", "psd"),
    regimes=("R", "U", "R+", "U+"),
    refinement="epochs=12,decay=0.1",
    refinements={"quick": "epochs=4"},
    source="LeCun's talks on Jarrett et al. 2009 (size, net)",
)


@hookimpl
def featbench_protocols() -> list[Protocol]:
    """Register the protocol."""
    return [CALTECH101_83]
