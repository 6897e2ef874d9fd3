"""Fit: constants of forms from times, by robust least squares of logarithms, with intervals and held-out errors."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from genz_jax.calibration.candidates import Range

STARTS = 6
"""Places from which constants are looked for."""

FOLDS = 5
"""Parts of the rows, each of which is predicted from the others for the held-out error."""

SOFT = 0.1
"""Relative error from which an outlier's pull grows no more than in proportion (soft L1 loss)."""

UNKNOWN = 1.0
"""Standard error of a constant's logarithm from which the rows are said not to determine it."""

Predict = Callable[[Mapping[str, jax.Array]], jax.Array]


@dataclasses.dataclass(frozen=True)
class Fit:
    """Constants that fit some rows.

    Attributes:
        values: constants by name.
        errors: standard errors of their logarithms; infinite where the rows do not determine one.
        held_out: ln(predicted/measured) of each row, predicted from folds that do not have it.
        residuals: the same of the final constants.
    """

    values: dict[str, float]
    errors: dict[str, float]
    held_out: np.ndarray
    residuals: np.ndarray

    @property
    def determined(self) -> dict[str, bool]:
        """Which constants the rows determine."""
        return {name: error < UNKNOWN for name, error in self.errors.items()}

    @property
    def error(self) -> float:
        """exp(mean |ln(predicted/measured)|) − 1 on held-out rows."""
        return geometric(self.held_out)


def geometric(logarithms: np.ndarray) -> float:
    """exp(mean |x|) − 1 of logarithms of predicted over measured, the error that doubles and halves count alike in."""
    return float(np.expm1(np.abs(logarithms).mean())) if logarithms.size else float("nan")


def folds_of(texts: Sequence[str]) -> np.ndarray:
    """A fold for each row, by a hash of its text, so that rows that are added leave the others where they are."""
    return np.array([hashlib.sha256(text.encode()).digest()[0] % FOLDS for text in texts])


def fit(predict: Predict, ranges: Mapping[str, Range], seconds: np.ndarray, texts: Sequence[str]) -> Fit:
    """Fit constants, and predict every row from rows without its fold.

    Minimises Σ ρ(ln(t/measured)) with ρ the soft L1 loss, over logarithms of the constants within their bounds, from
    several starts (SciPy's trust region reflective).

    Args:
        predict: from constants to the time of every row.
        ranges: start and bounds of each constant.
        seconds: measured times.
        texts: what the rows are, which decides their folds.
    """
    target, names = np.log(seconds), list(ranges)
    start, low, high = (np.log([ranges[name][i] for name in names]) for i in range(3))

    def logarithms(x: jax.Array) -> jax.Array:
        return jnp.log(predict(dict(zip(names, jnp.exp(x), strict=True)))) - target

    with jax.enable_x64(True):
        both = jax.jit(logarithms), jax.jit(jax.jacfwd(logarithms))
        every = np.ones(len(target), bool)
        found = _best(both, every, _starts(start, low, high), low, high)
        held, folds = np.empty(len(target)), folds_of(texts)
        for fold in np.unique(folds):
            rest = folds != fold
            inner = found if rest.sum() < 2 * len(names) else _best(both, rest, [found], low, high)
            held[~rest] = np.asarray(both[0](inner))[~rest]
        residuals, slopes = (np.asarray(function(found)) for function in both)
    errors = _errors(slopes, residuals, found, low, high)
    values = dict(zip(names, np.exp(found).tolist(), strict=True))
    return Fit(values, dict(zip(names, errors.tolist(), strict=True)), held, residuals)


def _starts(start: np.ndarray, low: np.ndarray, high: np.ndarray) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    near = [start + rng.uniform(-1.5, 1.5, len(start)) for _ in range(STARTS - 1)]
    return [np.clip(x, low + 1e-6, high - 1e-6) for x in (start, *near)]


def _best(
    both: tuple[Callable, Callable], rows: np.ndarray, starts: Sequence[np.ndarray], low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    from scipy.optimize import least_squares  # slow to import

    def some(function: Callable) -> Callable[[np.ndarray], np.ndarray]:
        return lambda x: np.asarray(function(x))[rows]

    found = [
        least_squares(
            some(both[0]),
            np.clip(x, low + 1e-6, high - 1e-6),
            some(both[1]),  # type: ignore[arg-type]
            (low, high),
            loss="soft_l1",
            f_scale=SOFT,
        )
        for x in starts
    ]
    return min(found, key=lambda one: one.cost).x


def _errors(
    slopes: np.ndarray, residuals: np.ndarray, found: np.ndarray, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """Standard errors by the curvature at the optimum; infinite at a bound and where no row feels a constant."""
    free = max(len(residuals) - len(found), 1)
    variance = np.median(np.abs(residuals)) ** 2 / 0.4549  # of a normal distribution, whatever the outliers
    variance = max(variance * len(residuals) / free, 1e-12)
    felt = np.abs(slopes).max(axis=0) > 1e-6
    errors = np.full(len(found), np.inf)
    if felt.any():
        inner = slopes[:, felt]
        errors[felt] = np.sqrt(np.maximum(np.diag(np.linalg.pinv(inner.T @ inner)) * variance, 0.0))
    at_bound = np.minimum(found - low, high - found) < 1e-3
    return np.where(at_bound, np.inf, errors)
