"""Study of codes: how near predicted sparse codes come to optimal ones, and what both cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from featbench.errors import UsageError
from featbench.studies.study import Findings, Study, StudySettings, Table, Value, option

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor, nn

    from featbench.comparison import Workbench
    from featbench.sparse import Solution
    from featbench.studies.coding import Solver

SOURCE = (
    "Kavukcuoglu, Ranzato, LeCun 2008, Fast inference in sparse coding algorithms, table 1 (signal to noise); "
    "Kavukcuoglu's thesis (2011), figure 2.5a (speed-up over Feature-Sign, read off the figure): 64 units of 9×9."
)

SNR = {
    ("learner's optimal", "predicted"): 8.6,
    ("Feature-Sign", "learner's optimal"): 5.2,
    ("Feature-Sign", "predicted"): 3.1,
    ("Feature-Sign", "regressor"): 3.2,
}
"""Published signal-to-noise ratios in decibels, by signal and its approximation."""

SPEED_UP = {0.1: 789.0, 0.2: 389.0, 0.4: 193.0, 0.6: 139.0}
"""Published time of Feature-Sign over that of the predictor, by λ."""

STEPS = (1, 3, 10, 30, 100)
"""Numbers of steps after which solvers are stopped early."""

LISTA_STEPS = (1, 3, 7)
"""Numbers of steps of trained LISTA."""


@dataclass(frozen=True)
class CodesSettings(StudySettings):
    """Settings of the study of codes."""

    learner: str = option("psd", "learner with a dictionary, an encoder and parameters lam and alpha")
    unlabelled: str = option("berkeley", "folder of images, or data set, to learn from and to measure on")
    filters: int = option(64, "units", least=1)
    size: int = option(9, "side of a patch, in pixels", least=2)
    patches: int = option(20_000, "number of patches to learn from and to measure on", least=2)
    lam: float = option(1.0, "λ of the signal-to-noise ratios, ½‖y - Dz‖² + λ‖z‖₁", above=0)
    updates: int = option(3000, "updates of the encoders that are trained on fixed codes", least=1)
    lams: tuple[float, ...] = option((0.1, 0.2, 0.4, 0.6), "values of λ at which times are measured", above=0)
    timed: int = option(2000, "patches on which times are measured", least=1)


@dataclass(frozen=True)
class FittedLearner:
    """What a learner found at one λ: its encoder, its dictionary `atoms` [d, m], and the weight α of its prediction."""

    encoder: nn.Module
    atoms: Tensor
    alpha: float
    size: int

    def predict(self, rows: Tensor) -> Tensor:
        """Return the predicted codes [n, m] of patches that are rows [n, d]."""
        from featbench.studies.natural import predict_codes

        return predict_codes(self.encoder, rows, self.size)


def run(settings: CodesSettings, workbench: Workbench) -> Findings:
    """Learn a dictionary and its encoder at each λ, and compare predicted codes with optimal ones."""
    from featbench.studies import natural

    tell = workbench.listener.step
    # A learner without λ is refused here, before patches are read.
    natural.create_learner(workbench, settings.learner, lam=settings.lam)
    sampled = natural.sample_patches(workbench, settings.unlabelled, settings.size, settings.patches, settings.seed)
    rows = scale_to_unit_deviation(natural.centre_patches(sampled))
    # A dictionary for each λ: one that was learned at another λ would make codes of the wrong density.
    models: dict[float, FittedLearner] = {}
    for number, lam in enumerate(wanted := dict.fromkeys((settings.lam, *settings.lams))):
        tell(f"learning at λ = {lam:g}", number, len(wanted))
        models[lam] = _learn(settings, workbench, rows, lam)
    tell("signal to noise", 0, 1)
    ratios = _measure_ratios(settings, models[settings.lam], rows)
    speed = []
    for number, lam in enumerate(settings.lams):
        tell(f"times at λ = {lam:g}", number, len(settings.lams))
        speed += _measure_speed(settings, models[lam], rows[: settings.timed], lam)
    tell("error against cost", 0, 1)
    errors = _measure_trade_off(settings, models[settings.lam], rows, rows[: settings.timed])
    return Findings(
        title="Predicted against optimal sparse codes",
        source=SOURCE,
        tables=[
            Table("Signal to noise", ratios, {"dB": ".1f", "published dB": ".1f"}),
            Table("Cost of optimal codes", speed, {"times the predictor": ".0f", "published": ".0f"}),
            Table(f"Error against cost at λ = {settings.lam:g}", errors, {"times the predictor": ".1f"}),
        ],
        notes=_write_notes(settings),
        draw=lambda figure: _draw(figure, speed, errors),
        size=(10.0, 4.5),
        data=natural.read_fingerprint(workbench, settings.unlabelled),
    )


def scale_to_unit_deviation(rows: Tensor) -> Tensor:
    """Scale each patch [n, d], of mean 0, to a standard deviation of 1; blank ones stay as they are."""
    deviation = rows.square().mean(dim=1, keepdim=True).sqrt()
    return rows / deviation.where(deviation > 0, deviation.new_ones(()))


def compute_signal_to_noise(signal: Tensor, approximation: Tensor) -> float:
    """Return the signal-to-noise ratio in decibels: 10 log₁₀ (var(signal) / var(signal - approximation)).

    Both are [n, m]; variances are over patches, summed over units. Raises `UsageError` if either variance is zero.
    """
    import math

    noise = (signal - approximation).double().var(dim=0).sum()
    if not float(noise) > 0:
        raise UsageError("predicted and optimal codes are the same: there is nothing to measure, lower --lam")
    power = float(signal.double().var(dim=0).sum())
    if not power > 0:
        raise UsageError("all codes are zero: lower --lam")
    return 10 * math.log10(power / float(noise))


def _learn(settings: CodesSettings, workbench: Workbench, rows: Tensor, lam: float) -> FittedLearner:
    from featbench.studies import natural

    learner = natural.create_learner(workbench, settings.learner, lam=lam)
    filters = natural.learn_filters(learner, rows, settings.size, settings.filters, settings.seed)
    alpha = float(learner.parameters().get("alpha", 1.0))
    return FittedLearner(
        natural.make_encoder(learner, filters), natural.find_atoms(learner, filters), alpha, settings.size
    )


def _measure_ratios(settings: CodesSettings, model: FittedLearner, rows: Tensor) -> list[dict[str, Value]]:
    from featbench.studies.coding import compute_density, find_codes_near, find_optimal_codes
    from featbench.studies.regressor import make_predictor, train_encoder

    predicted = model.predict(rows)
    best = find_optimal_codes(rows, model.atoms, settings.lam)
    regressor = make_predictor(model.atoms, "tanh", settings.lam)
    train_encoder(regressor, rows, best, settings.seed, settings.updates)
    # The regressor sees the same patches and has the form of the learner's encoder. What it lacks is any influence on
    # the codes that it predicts.
    codes = {
        "predicted": predicted,
        "Feature-Sign": best,
        "learner's optimal": find_codes_near(rows, model.atoms, settings.lam, predicted, model.alpha),
        "regressor": regressor(rows),
    }
    return [
        {
            "signal": signal,
            "against": other,
            "published dB": published,
            "dB": compute_signal_to_noise(codes[signal], codes[other]),
            "non-zero %": 100 * compute_density(codes[signal]),
        }
        for (signal, other), published in SNR.items()
    ]


def _measure_speed(settings: CodesSettings, model: FittedLearner, rows: Tensor, lam: float) -> list[dict[str, Value]]:
    """Return the times of the predictor and of all solvers at one λ."""
    from featbench.studies.coding import find_optimal_codes, list_solvers
    from featbench.studies.costs import Way, measure_costs

    ways: dict[str, Way] = {"predicted": model.predict}
    ways |= {name: partial(_solve, solver, model.atoms, lam) for name, solver in list_solvers().items()}
    timed = measure_costs(ways, rows, find_optimal_codes(rows, model.atoms, lam))
    return [
        {
            "λ": f"{lam:g}",
            "way": row["way"],
            "µs per patch": row["µs per patch"],
            "times the predictor": row["times the first"],
            "published": SPEED_UP.get(lam) if row["way"] == "feature-sign" else None,
        }
        for row in timed
    ]


def _measure_trade_off(
    settings: CodesSettings, model: FittedLearner, rows: Tensor, timed: Tensor
) -> list[dict[str, Value]]:
    """Return cost and error on `timed` of the prediction, of LISTA trained on `rows`, and of solvers stopped early."""
    from featbench.learning.unrolled import Lista, make_ista_weights
    from featbench.sparse import coordinate_descent, fista
    from featbench.studies.coding import find_optimal_codes
    from featbench.studies.costs import Way, measure_costs
    from featbench.studies.regressor import make_unrolled, train_encoder

    def make_stopped(solver: Callable[..., Solution], steps: int) -> Way:
        # At a tolerance of 0 nothing but an exact optimum ends a solver before its last step.
        return lambda patches: solver(patches, model.atoms, settings.lam, iterations=steps, tolerance=0.0).codes

    ways: dict[str, Way] = {"predicted": model.predict}
    codes = find_optimal_codes(rows, model.atoms, settings.lam)
    for steps in LISTA_STEPS:
        ways[f"lista, {steps} steps"] = network = make_unrolled(
            Lista, make_ista_weights(model.atoms, settings.lam), steps
        )
        train_encoder(network, rows, codes, settings.seed, settings.updates)
    for name, solver in (("fista", fista), ("coordinate-descent", coordinate_descent)):
        ways |= {f"{name}, {steps} steps": make_stopped(solver, steps) for steps in STEPS}
    found = measure_costs(ways, timed, find_optimal_codes(timed, model.atoms, settings.lam))
    return [
        {("times the predictor" if name == "times the first" else name): row[name] for name in row} for row in found
    ]


def _solve(solver: Solver, atoms: Tensor, lam: float, rows: Tensor) -> Tensor:
    return solver(rows, atoms, lam)


def _write_notes(settings: CodesSettings) -> list[str]:
    return [
        f"{settings.patches} patches of {settings.size}×{settings.size}, each of mean 0 and standard deviation 1, of "
        f"images that are locally contrast-normalised; {settings.filters} units learned by {settings.learner} at each "
        "λ.",
        f"Signal to noise at λ = {settings.lam:g} (the paper does not give its own): 10 log₁₀ of the variance of the "
        "signal over that of the difference. Feature-Sign: the minimiser of ½‖y - Dz‖² + λ‖z‖₁; the learner's optimal "
        "codes are drawn to the prediction as well, α/2 ‖z - f(y)‖²; regressor: the same encoder, trained apart on "
        "Feature-Sign's codes.",
        f"Times: {settings.timed} patches in one batch, medians in one run; solvers go on until the duality gap is "
        "below 1e-7 of the objective. Published: Feature-Sign, patch by patch, over the predictor.",
        "‖z* - z‖²: mean squared distance to the optimum; relative: over the mean of ‖z*‖². FISTA and coordinate "
        "descent, which moves one code a step, are stopped after so many steps.",
    ]


def _draw(figure: Figure, speed: list[dict[str, Value]], errors: list[dict[str, Value]]) -> None:
    left, right = figure.subplots(1, 2)
    for way in dict.fromkeys(str(row["way"]) for row in speed if row["way"] != "predicted"):
        mine = [row for row in speed if row["way"] == way]
        left.plot(
            [_read_number(row["λ"]) for row in mine],
            [_read_number(row["times the predictor"]) for row in mine],
            "o-",
            label=way,
        )
    left.plot(list(SPEED_UP), list(SPEED_UP.values()), "ks--", label="feature-sign, published")
    left.set(xlabel="λ", ylabel="time over the predictor's", yscale="log")
    left.legend()
    for kind in dict.fromkeys(str(row["way"]).partition(",")[0] for row in errors):
        mine = [row for row in errors if str(row["way"]).partition(",")[0] == kind]
        costs, relative = (
            [_read_number(row["µs per patch"]) for row in mine],
            [_read_number(row["relative"]) for row in mine],
        )
        right.plot(costs, relative, "o-", label=kind)
    right.set(xlabel="µs per patch", ylabel="‖z* - z‖² / ‖z*‖²", xscale="log", yscale="log", ylim=(1e-6, None))
    right.legend()


def _read_number(value: Value) -> float:
    return float(value or 0)


STUDY = Study("codes", CodesSettings, run)
