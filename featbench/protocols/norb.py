"""Small NORB with the two-stage net of Jarrett et al. 2009, section 5."""

from __future__ import annotations

from featbench.data.maps import Preprocessing
from featbench.evaluation.protocol import Protocol
from featbench.hookspecs import hookimpl

ARCHITECTURES = {
    "jarrett": "8F5-Rabs-N-PA4/4 > 24F6:4-Rabs-N-PA3/3",
    "jarrett:PA": "8F5-PA4/4 > 24F6:4-PA3/3",
    "plain": "8F5-PA4/4 > 24F6:4-PA3/3 > 100F6",
}
"""The net of the paper, the same without rectification and normalisation, and that with a hidden layer of 100 units, as
the ConvNet of LeCun, Huang, Bottou 2004 has one."""

NORB = Protocol(
    name="norb",
    summary="96×96 toys, 5 classes, 100 labels per class (or --train-per-class), two stages, tested on other toys",
    dataset="small-norb",
    architecture=ARCHITECTURES["jarrett"],
    architectures=ARCHITECTURES,
    preprocessing=Preprocessing(),
    train_per_class=100,
    test="fixed",
    features=("random", "psd"),
    regimes=("R", "U", "R+", "U+"),
    refinement="batch=32",
    refinements={"quick": "epochs=5"},
    source="Jarrett et al. 2009, section 5 (net, numbers of labels); splits are featbench's own",
)


@hookimpl
def featbench_protocols() -> list[Protocol]:
    """Register the protocol."""
    return [NORB]
