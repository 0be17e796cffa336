"""A request for a folder of one's own images: which protocol suits them, and how many labels a class there are."""

from __future__ import annotations

from dataclasses import dataclass, replace

from featbench.data.class_folders import ClassFolderDataset
from featbench.data.look import Look, look_at_folder
from featbench.experiment.request import Request
from featbench.registry import Registry

FOLDER = "folder:"
"""What the names of data sets begin with that are folders of one's own images."""

PHOTOS, SMALL_IMAGES = "photos", "small-images"

LEAST_PHOTO = 64
"""Longest side in pixels from which on images are taken for photographs."""

MOST_LABELS = 10
"""Labels a class where nobody says how many, if there are enough images."""


@dataclass(frozen=True)
class SettledRequest:
    """A request with its protocol settled.

    remarks: lines for the user on what was found and chosen, and why. loses_colour: whether images in colour become
    grey although nobody asked for it.
    """

    request: Request
    remarks: tuple[str, ...] = ()
    loses_colour: bool = False


def settle_request(request: Request, registry: Registry) -> SettledRequest:
    """Settle what a request leaves open because it depends on the images of a folder; other requests stay.

    Raises `DataError` if the folder cannot be looked at.
    """
    if request.dataset is None or not request.dataset.startswith(FOLDER):
        return SettledRequest(request)
    dataset = registry.dataset(request.dataset)
    assert isinstance(dataset, ClassFolderDataset)
    look = look_at_folder(dataset.root(None), dataset.without)
    remarks = [f"{request.dataset}: {look}"]
    if request.protocol is None:
        request, reasons = _choose_protocol(request, look, registry)
        remarks += reasons
    loses_colour = look.colour and _becomes_grey(request, registry)
    if loses_colour:
        remarks.append(
            "channels: grey, which loses the colours of these images: --channels rgb, or opponent, keeps them"
        )
    return SettledRequest(request, tuple(remarks), loses_colour)


def _choose_protocol(request: Request, look: Look, registry: Registry) -> tuple[Request, list[str]]:
    """Return the request with a protocol and a number of labels that suit the images, and a line on each."""
    large = look.longest >= LEAST_PHOTO
    name = PHOTOS if large else SMALL_IMAGES
    reason = (
        f"a typical image has {LEAST_PHOTO} pixels or more"
        if large
        else f"no side of a typical image has {LEAST_PHOTO} pixels"
    )
    remarks = [f"protocol: {name}, as {reason} (--protocol takes another)"]
    request = replace(request, protocol=name)
    if request.train_per_class is None:
        labels = choose_labels(look.smallest)
        remarks.append(
            f"labels: {labels} a class, of {look.smallest} images in the smallest one (--train-per-class takes more); "
            "images that no draw trains on test"
        )
        request = replace(request, train_per_class=labels)
    return request, remarks


def choose_labels(smallest: int) -> int:
    """Return how many labels a class are taken where the smallest class has so many images.

    A third of them, between 2 and `MOST_LABELS`: half test, and draws must be able to differ.
    """
    return max(2, min(MOST_LABELS, smallest // 3))


def _becomes_grey(request: Request, registry: Registry) -> bool:
    """Whether the request turns images grey without having been asked to."""
    return request.channels is None and registry.protocol(request.protocol or "").preprocessing.colour == "grey"
