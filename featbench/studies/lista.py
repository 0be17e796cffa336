"""Study of LISTA: how far predicted codes are from the optimum, by the encoder and its number of steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from featbench.errors import UsageError
from featbench.studies.study import Findings, Study, StudySettings, Table, Value, option

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor, nn

    from featbench.comparison import Workbench

SOURCE = (
    "Gregor, LeCun 2010, Learning fast approximations of sparse coding, table 1, figures 3 and 5 (read off): "
    "10×10 patches of Berkeley images, 100 and 400 atoms, α = 0.5."
)

PUBLISHED: dict[str, dict[int, float]] = {
    "D tanh": {100: 8.6, 400: 10.7},
    "shrink": {100: 3.29, 400: 4.82},
    "LISTA 1": {100: 1.50, 400: 2.45},
    "LISTA 3": {100: 0.98, 400: 2.12},
    "LISTA 7": {100: 0.52, 400: 1.62},
    "FISTA 1": {100: 21.6, 400: 22.4},
    "FISTA 2": {100: 17.0, 400: 20.6},
    "FISTA 3": {100: 14.0, 400: 19.2},
    "FISTA 5": {100: 11.8, 400: 16.9},
    "FISTA 7": {100: 10.1, 400: 15.2},
    "LCoD 1": {100: 2.29, 400: 4.10},
    "LCoD 5": {100: 1.33, 400: 2.62},
    "LCoD 20": {100: 0.71, 400: 1.47},
    "CoD 1": {100: 21.7, 400: 90.0},
    "CoD 2": {100: 13.5, 400: 47.3},
    "CoD 5": {100: 8.54, 400: 21.9},
    "CoD 10": {100: 6.60, 400: 14.7},
    "CoD 20": {100: 4.77, 400: 10.6},
    "CoD 50": {100: 2.11, 400: 6.24},
    "CoD 100": {100: 0.77, 400: 3.17},
    "CoD 200": {100: 0.21, 400: 1.15},
}
"""Published squared error of codes, by the way they are computed and the number of atoms."""

MATCHES: dict[tuple[str, Value], int] = {("LISTA 1", 100): 18, ("LISTA 1", 400): 35}
"""Published number of FISTA iterations that reach the error of an encoder, by encoder and number of atoms."""

HELD_OUT = 0.2
"""Fraction of the patches that nothing is trained on: errors are measured on these."""


@dataclass(frozen=True)
class ListaSettings(StudySettings):
    """Settings of the study of LISTA."""

    unlabelled: str = option("berkeley", "folder of images, or data set, to learn from and to measure on")
    atoms: tuple[int, ...] = option((100, 400), "numbers of atoms", least=1)
    size: int = option(10, "side of a patch, in pixels", least=2)
    patches: int = option(50_000, "number of patches, of which a fifth is held out", least=10)
    lam: float = option(0.5, "λ, the paper's α, ½‖y - Dz‖² + λ‖z‖₁", above=0)
    dictionary_updates: int = option(1000, "updates of the dictionary", least=1)
    updates: int = option(5000, "updates of each encoder", least=1)
    lista: tuple[int, ...] = option((1, 3, 7), "iterations of LISTA", least=1)
    lcod: tuple[int, ...] = option((1, 5, 20), "steps of LCoD", least=1)
    cod: tuple[int, ...] = option((1, 2, 5, 10, 20, 50, 100, 200), "steps of coordinate descent", least=1)
    fista: tuple[int, ...] = option((1, 2, 3, 5, 7, 10, 18, 35, 70, 140), "iterations of FISTA", least=1)


def run(settings: ListaSettings, workbench: Workbench) -> Findings:
    """Learn a dictionary of each size, train encoders on its optimal codes, and measure errors on held-out patches."""
    from featbench.studies import natural
    from featbench.studies.codes import scale_to_unit_deviation

    sampled = natural.sample_patches(
        workbench, settings.unlabelled, settings.size, settings.patches, settings.seed, lcn=0.0
    )
    # Patches of equal norm share one λ: a bright edge and a faint one get equally sparse codes.
    rows = scale_to_unit_deviation(natural.centre_patches(sampled))
    held_out = max(1, round(HELD_OUT * len(rows)))
    errors: list[dict[str, Value]] = []
    for atoms in dict.fromkeys(settings.atoms):
        for way, error, energy in _measure_errors(settings, rows[held_out:], rows[:held_out], atoms, workbench):
            published = PUBLISHED.get(way, {}).get(atoms)
            errors.append(
                {"atoms": atoms, "way": way, "published": published, "error": error, "relative": error / energy}
            )
    return Findings(
        title="Errors of predicted sparse codes: LISTA, its baselines, and FISTA stopped early",
        source=SOURCE,
        tables=[Table("", errors, {"error": ".3g", "published": ".3g", "relative": ".3f"}), _match_iterations(errors)],
        notes=[
            f"{len(rows) - held_out} patches of {settings.size}×{settings.size} to train on, {held_out} to measure on, "
            "each of mean 0 and standard deviation 1; flat ones are left out.",
            f"error: mean of ‖z* - z‖² over patches, z* the minimiser of ½‖y - Dz‖² + λ‖z‖₁ at λ = {settings.lam:g}; "
            "relative: over the mean of ‖z*‖².",
            "D tanh: g tanh(W y + b); shrink: the soft threshold of W y; both, LISTA and LCoD (started as "
            "ISTA and coordinate descent) are trained on z*. FISTA and CoD, coordinate descent, start from zero.",
        ],
        draw=lambda figure: _draw(figure, errors),
        size=(9.0, 4.5),
        data=natural.read_fingerprint(workbench, settings.unlabelled),
    )


def _measure_errors(
    settings: ListaSettings, rows: Tensor, held_out: Tensor, atoms: int, workbench: Workbench
) -> Iterator[tuple[str, float, float]]:
    """Yield each way to compute codes, its mean squared error on `held_out` [n, d], and the mean of ‖z*‖² there."""
    from featbench.learning.unrolled import Lcod, Lista, make_descent_weights, make_ista_weights
    from featbench.sparse import coordinate_descent, fista, learn_dictionary
    from featbench.studies.coding import find_optimal_codes
    from featbench.studies.regressor import make_predictor, make_unrolled, train_encoder

    # One dictionary, and one set of optimal codes: the ways to predict them are all that differs.
    tell = workbench.listener.step
    tell(f"{atoms} atoms: dictionary", 0, 2)
    dictionary = learn_dictionary(
        rows, atoms, settings.lam, updates=settings.dictionary_updates, seed=settings.seed
    ).atoms
    tell(f"{atoms} atoms: optimal codes", 1, 2)
    optimal, wanted = (
        find_optimal_codes(rows, dictionary, settings.lam),
        find_optimal_codes(held_out, dictionary, settings.lam),
    )
    energy = float(wanted.square().sum(dim=1).mean())
    if not energy > 0:
        raise UsageError(f"all codes are zero at λ = {settings.lam:g}: lower --lam")

    def compute_error(codes: Tensor) -> float:
        return float((wanted - codes).square().sum(dim=1).mean())

    proximal, coordinate = make_ista_weights(dictionary, settings.lam), make_descent_weights(dictionary, settings.lam)
    encoders: dict[str, nn.Module] = {
        "D tanh": make_predictor(dictionary, "tanh", settings.lam),
        "shrink": make_predictor(dictionary, "shrink", settings.lam),
        **{f"LISTA {steps}": make_unrolled(Lista, proximal, steps) for steps in settings.lista},
        **{f"LCoD {steps}": make_unrolled(Lcod, coordinate, steps) for steps in settings.lcod},
    }
    for number, (way, encoder) in enumerate(encoders.items()):
        tell(f"{atoms} atoms: {way}", number, len(encoders))
        train_encoder(encoder, rows, optimal, settings.seed, settings.updates)
        yield way, compute_error(encoder(held_out)), energy
    # Solvers start from zero and need no training. At a tolerance of 0 they take exactly these steps.
    for name, solver, counts in (("FISTA", fista, settings.fista), ("CoD", coordinate_descent, settings.cod)):
        for steps in counts:
            codes = solver(held_out, dictionary, settings.lam, iterations=steps, tolerance=0.0).codes
            yield f"{name} {steps}", compute_error(codes), energy


def _match_iterations(errors: list[dict[str, Value]]) -> Table:
    """Return, for each trained encoder, the least number of FISTA iterations among those measured that match it."""
    rows: list[dict[str, Value]] = []
    for row in errors:
        way, atoms = str(row["way"]), row["atoms"]
        if way.startswith(("FISTA", "CoD")):
            continue
        # Errors fall with the iterations, so the smallest count that is good enough is where FISTA catches up.
        stopped = [other for other in errors if other["atoms"] == atoms and str(other["way"]).startswith("FISTA")]
        enough = [_read_steps(other) for other in stopped if _read_number(other["error"]) <= _read_number(row["error"])]
        found = str(min(enough)) if enough else f"more than {max(map(_read_steps, stopped))}"
        rows.append(
            {"atoms": atoms, "way": way, "FISTA iterations to match": found, "published": MATCHES.get((way, atoms))}
        )
    return Table("Iterations of FISTA to the same error, among those measured", rows)


def _read_steps(row: dict[str, Value]) -> int:
    """Return the number of iterations that the name of a way ends with; 0 for ways that do not iterate."""
    last = str(row["way"]).rpartition(" ")[2]
    return int(last) if last.isdigit() else 0


def _read_number(value: Value) -> float:
    return float(value or 0)


def _draw(figure: Figure, errors: list[dict[str, Value]]) -> None:
    counts = list(dict.fromkeys(row["atoms"] for row in errors))
    axes = figure.subplots(1, len(counts), squeeze=False, sharey=True)[0]
    for axis, atoms in zip(axes, counts, strict=True):
        mine = [row for row in errors if row["atoms"] == atoms]
        for number, kind in enumerate(("D tanh", "shrink", "LISTA", "FISTA", "LCoD", "CoD")):
            for column, style in (("error", "o-"), ("published", "s--")):
                points = [row for row in mine if str(row["way"]).startswith(kind) and row[column] is not None]
                label = kind if column == "error" else f"{kind}, published"
                steps, values = [_read_steps(row) for row in points], [_read_number(row[column]) for row in points]
                if points:
                    axis.plot(steps, values, f"C{number}{style}", markersize=4, label=label)
        axis.set(title=f"{atoms} atoms", xlabel="iterations", xscale="symlog", yscale="log")
    axes[0].set_ylabel("‖z* - z‖²")
    axes[0].legend()


STUDY = Study("lista", ListaSettings, run)
