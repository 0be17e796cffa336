"""How much longer filters take to learn beside another busy process, with the threads that pay off and with all.

Run it on a machine that does nothing else: `python benchmarks/busy_machine.py`. Each time is the median of `--runs`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import numpy as np
import torch

from featbench.data.maps import Preprocessing, make_maps
from featbench.experiment.request import parse_choice
from featbench.learning import networks
from featbench.registry import Registry
from featbench.stages.architecture import Architecture

LEARNERS = ("psd(updates=500,patches=5000)", "kmeans(patches=5000)", "rbm(updates=500)", "autoencoder(updates=500)")


def spin() -> None:
    """Keep one core busy."""
    while True:
        pass


@contextmanager
def keep_busy(processes: int) -> Iterator[None]:
    """Let other processes take a core each inside the block."""
    others = [multiprocessing.Process(target=spin, daemon=True) for _ in range(processes)]
    for other in others:
        other.start()
    try:
        yield
    finally:
        for other in others:
            other.kill()


def time_learning(text: str, registry: Registry, small_bank: int, runs: int) -> float:
    """Return the median seconds of learning 64 filters of 9×9 with the threads that `small_bank` allows."""
    choice = parse_choice(text, registry)
    learner = registry.learner(choice.name).create(dict(choice.parameters))
    pixels = list(np.random.default_rng(0).integers(0, 256, (40, 90, 90), dtype=np.uint8))
    maps = make_maps(pixels, Preprocessing(lcn=1.0))
    networks.SMALL_BANK = small_bank
    seconds = []
    for _ in range(runs):
        began = time.perf_counter()
        networks.learn_stages(Architecture.parse("64F9"), learner, maps.shape, maps, seed=0, device=torch.device("cpu"))
        seconds.append(time.perf_counter() - began)
    return median(seconds)


def main() -> None:
    """Print a Markdown table of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--others", type=int, default=1, help="other busy processes")
    options = parser.parse_args()
    registry, chosen = Registry(), networks.SMALL_BANK
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {options.others} other busy process\n")
    print("| learner | threads | quiet s | busy s | busy / quiet |\n|---|---|---|---|---|")
    for text in LEARNERS:
        for name, small_bank in (("those that pay off", chosen), ("all", 0)):
            quiet = time_learning(text, registry, small_bank, options.runs)
            with keep_busy(options.others):
                busy = time_learning(text, registry, small_bank, options.runs)
            print(f"| `{text}` | {name} | {quiet:.2f} | {busy:.2f} | {busy / quiet:.1f} |", flush=True)


if __name__ == "__main__":
    main()
