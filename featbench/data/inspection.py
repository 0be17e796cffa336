"""What a user should know of the images of a folder before scores are believed: blank ones, copies, tiny ones."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from featbench.types import IntArray, Pixels

LEAST_SIDE = 8
"""Pixels of the shorter side below which an image is called small: the digits of scikit-learn have 8."""

LISTED = 5
"""Images, or groups of equal ones, that a line names."""


@dataclass(frozen=True)
class Traits:
    """What is remembered of an image once it was read.

    digest: equal for images of equal pixels. blank: whether it has one value all over. small: whether its file has a
    side below `LEAST_SIDE`. remarks: how it was read.
    """

    digest: bytes
    blank: bool
    small: bool
    remarks: tuple[str, ...] = ()


def find_traits(pixels: Pixels, read: Pixels, remarks: tuple[str, ...] = ()) -> Traits:
    """Return what to remember of an image: `pixels` as they are learned from, `read` as they were in the file."""
    digest = hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16, person=str(pixels.shape).encode()[:16])
    # Of each channel by itself: a red image is blank too.
    flat = pixels.reshape(-1, 1 if pixels.ndim == 2 else pixels.shape[2])
    blank = bool((flat == flat[0]).all())
    return Traits(digest.digest(), blank, min(read.shape[:2]) < LEAST_SIDE, remarks)


def describe_traits(traits: Sequence[Traits], labels: IntArray, names: Sequence[str]) -> list[str]:
    """Return a line for each thing that is strange about images [n] with labels [n] and names [n].

    Copies are of interest where labels tell images apart, and nowhere else.
    """
    found: Mapping[str, list[str]] = defaultdict(list)
    groups: Mapping[bytes, list[int]] = defaultdict(list)
    for index, (one, name) in enumerate(zip(traits, names, strict=True)):
        if one.blank:
            found["images of one value all over, from which nothing can be learned"].append(name)
        else:
            groups[one.digest].append(index)
        if one.small:
            found[f"images with a side of less than {LEAST_SIDE} pixels"].append(name)
        for remark in one.remarks:
            found[f"images with {remark}"].append(name)
    several_classes = len(labels) > 0 and labels.min() < labels.max()
    for group in groups.values():
        if several_classes and len(group) > 1:
            several = len({int(labels[index]) for index in group}) > 1
            what = (
                "the same image in several classes, of which one at most is right"
                if several
                else "the same image several times in a class, so that it may train and test"
            )
            found[what].append(" = ".join(names[index] for index in group))
    return [f"{what}: {_list(named)}" for what, named in found.items()]


def _list(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names[:LISTED])}{', …' * (len(names) > LISTED)})"
