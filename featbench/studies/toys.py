"""Toy data of the energy study: points of the plane in clusters and along a spiral, in the square [-1, 1]²."""

from __future__ import annotations

import numpy as np

from featbench.types import FloatArray

CENTRES = ((-0.5, -0.4), (0.55, -0.3), (0.0, 0.55))

WIDTH = 0.04
"""Half width at half maximum of a cluster, in each coordinate."""

TURNS, INNER, OUTER = 2.0, 0.1, 0.9
"""Number of turns of the spiral, and its radius at both ends."""

NOISE = 0.01
"""Standard deviation of the spiral's points around it."""


def draw_cauchy_clusters(count: int, generator: np.random.Generator) -> FloatArray:
    """Draw points [count, 2] of a mixture of three Cauchy clusters; those outside the square are drawn again."""
    found = np.empty((0, 2))
    while len(found) < count:
        centres = np.array(CENTRES)[generator.integers(len(CENTRES), size=count)]
        drawn = centres + WIDTH * generator.standard_cauchy((count, 2))
        found = np.concatenate([found, drawn[(np.abs(drawn) <= 1).all(axis=1)]])
    return found[:count]


def draw_spiral(count: int, generator: np.random.Generator) -> FloatArray:
    """Draw points [count, 2] of an Archimedean spiral, evenly along it, with a little noise across."""
    # Uniform in the curve's parameter would crowd points at the centre. Uniform in arc length: the cumulative length of
    # a fine polygon, inverted by linear interpolation.
    steps = np.linspace(0, 1, 2000)
    curve = _compute_curve(steps)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    along = np.interp(generator.random(count) * length[-1], length, steps)
    return _compute_curve(along) + NOISE * generator.normal(size=(count, 2))


def _compute_curve(t: FloatArray) -> FloatArray:
    """Return points [n, 2] of the spiral without noise at parameters t [n] from 0 (inner end) to 1."""
    angle, radius = 2 * np.pi * TURNS * t, INNER + (OUTER - INNER) * t
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
