"""Why a combination of learner, regime, classifier and images makes no sense: each function gives a reason, or ""."""

from __future__ import annotations

from featbench.classification.classifier import MapClassifier
from featbench.devices.selection import resolve_device
from featbench.evaluation.regimes import Regime
from featbench.evaluation.split import Survey
from featbench.learning.learner import FeatureLearner, FilterLearner, NetworkLearner
from featbench.learning.networks import find_refusal
from featbench.parameters import Choice
from featbench.registry import Registry
from featbench.stages.architecture import Architecture
from featbench.stages.specs import Shape


def refuse_shape(choice: Choice, regime: Regime, registry: Registry, architecture: Architecture, shape: Shape) -> str:
    """Return why a learner cannot fill the architecture, take images of this size, or be refined on them.

    shape: maps, smallest height and smallest width of the images. One alternative of the learner that does not fit is
    reason enough: validation has to choose among all of them.
    """
    for alternative in choice.alternatives():
        learner = registry.learner(choice.name).create(dict(alternative.parameters))
        reason = None
        if isinstance(learner, FilterLearner):
            reason = find_refusal(architecture, learner, shape)
        elif isinstance(learner, NetworkLearner):
            reason = learner.refusal(shape)
        if reason is None and regime.refined:
            reason = learner.refinement_refusal(shape)
        if reason:
            return reason
    return ""


def refuse_sizes(
    choice: Choice, regime: Regime, classifier: str, registry: Registry, survey: Survey, architecture: Architecture
) -> str:
    """Return why a classifier cannot take what a learner gives for images of these sizes."""
    learner = registry.learner(choice.name)
    local = is_map_classifier(classifier, registry)
    joined = issubclass(learner, FilterLearner) and bool(architecture.kept)
    if local and joined:
        return (
            f"features of several stages have no common grid of local vectors, which {classifier} takes: keep those of "
            "the last stage alone (write > for >+), or pair them with a classifier of rows, as linear-svm"
        )
    if local and learner.gives == "row":
        return (
            f"{choice.name} gives one row of features an image, without the local vectors that {classifier} takes: "
            "pair it with a classifier of rows, as linear-svm"
        )
    if survey.one_size or learner.gives == "row":
        return ""
    # From here on images differ in size, and so do the maps that come of them.
    remedy = "a protocol that resizes and pads is needed"
    if joined:
        return f"the images differ in size, and so do their rows of features of several stages: {remedy}"
    if regime.refined:
        return f"the images differ in size, and only images of one size can be refined on: {remedy}"
    if not local:
        return f"the images differ in size, and so do their features, of which {classifier} takes rows alone: {remedy}"
    return ""


def is_map_classifier(classifier: str, registry: Registry) -> bool:
    """Whether a classifier takes local vectors rather than rows."""
    return isinstance(registry.classifier(Choice.read(classifier).name), MapClassifier)


def refuse_pair(learner: type[FeatureLearner], regime: Regime, device: str) -> str:
    """Return why a learner and a regime do not go together on this device."""
    reason = regime.refusal(learner.name, learner.family)
    if reason:
        return reason
    if regime.refined and not learner.differentiable:
        return f"{learner.name} is not differentiable, so labels cannot refine it"
    if learner.needs_gpu and resolve_device(device).type == "cpu":
        return f"{learner.name} needs a GPU: use --device cuda"
    return ""
