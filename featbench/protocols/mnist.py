"""MNIST with the two-stage net of Jarrett et al. 2009, section 5."""

from __future__ import annotations

from featbench.data.maps import Preprocessing
from featbench.evaluation.protocol import Protocol
from featbench.hookspecs import hookimpl

ARCHITECTURES = {
    "jarrett": "32F5-Rabs-N-PA2/2 > 64F5:16-Rabs-N-PA2/2",
    "lenet5": "6F5-PA2/2 > 16F5-PA2/2 > 120F4 > 84F1",
    "wide": "32F5-PM2 > 64F5-PM2 > 256F4",
}
"""The net of the paper; LeNet-5 (LeCun, Bottou, Bengio, Haffner 1998) for 28×28 pixels, every map seeing all below;
a wider one with maximum pooling, for relu. A bank as large as its maps is a fully connected layer."""

REFINEMENTS = {
    "quick": "epochs=5",
    "paper": "hidden=200",
    "distorted": "hidden=200,epochs=40,patience=40,shift=2,rotate=10,scale=0.1,shear=0.1,elastic=34,smooth=4",
}
"""Few epochs; the paper's classifier, which has 200 hidden units and was trained on all images for 30 epochs; the same
with small affine and elastic distortions (Simard, Steinkraus, Platt 2003)."""

MNIST = Protocol(
    name="mnist",
    summary="28×28 digits, 100 labels per class (or --train-per-class), two stages, tested on the 10,000 test images",
    dataset="mnist",
    architecture=ARCHITECTURES["jarrett"],
    architectures=ARCHITECTURES,
    preprocessing=Preprocessing(),
    train_per_class=100,
    test="fixed",
    features=("random", "psd"),
    regimes=("R", "U", "R+", "U+"),
    refinement="epochs=30,batch=32,decay=0.1",
    refinements=REFINEMENTS,
    source="Jarrett et al. 2009, section 5 (net); splits are featbench's own",
)


@hookimpl
def featbench_protocols() -> list[Protocol]:
    """Register the protocol."""
    return [MNIST]
