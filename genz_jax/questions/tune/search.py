"""Search for the optimum of a tuning problem: descent from many starts, then cutting planes on the exact model."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from genz_jax.base.caches import Compiled
from genz_jax.questions.tune.problem import Data, Form, Outcome, outcome, slopes

STAGES = (0.1, 0.0)
"""Smoothing of the maxima, stage by stage; each compiles once, which takes longer than its steps."""

_PENALTY = 100.0
"""Weight ρ of the augmented Lagrangian; goal and excess are logarithms, so that multipliers are of order 1.

Starts of a problem of four rates that end within 1 % of the optimum: 21 % with 10, 38 with 40, 53 with 100."""

_UPDATE = 20
"""Steps between updates of the multipliers: 80 % of the same starts, against 53 with 10."""

_FORGET = 0.9
"""Decay of Adam's second moment: with the usual 0.999 the large slopes of limits broken at first slow the rest."""

_RATES = (0.06, 0.0006)
"""Step sizes of Adam at the start and the end, as shares of the box."""


DESIGNS = 256
"""Designs at which choices of parallel sizes are compared where there are more of them than starts."""

_JUDGED = 2**13
"""Points of a block of that comparison."""

BROKEN = 10.0
"""Weight of the largest excess where starts are compared: several times what a percent of a limit is worth."""


def shares(steps: int) -> list[int]:
    """Steps of each stage of smoothing."""
    each = [steps // len(STAGES)] * len(STAGES)
    each[-1] += steps - sum(each)
    return each


class State(eqx.Module):
    """Where the starts are in the unit box (d, n), their multipliers (c, n), and the optimiser's memory."""

    unit: Any
    multipliers: Any
    memory: Any


def _optimiser(steps: int) -> optax.GradientTransformation:
    first, last = _RATES
    return optax.adam(optax.exponential_decay(first, steps, last / first), b2=_FORGET)


def begin(unit: Any, limits: int, steps: int) -> State:
    """State of the starts at places of the unit box."""
    return State(unit, jnp.zeros((limits, unit.shape[1]), unit.dtype), _optimiser(steps).init(unit))


def scatter(dimensions: int, starts: int, seed: int) -> np.ndarray:
    """Starting points in the unit box, shape (d, n), from a Sobol sequence."""
    from scipy.stats import qmc  # slow to import, and only needed here

    if dimensions == 0:
        return np.zeros((0, starts))
    sampler = qmc.Sobol(dimensions, rng=np.random.default_rng(seed))
    return sampler.random_base2(max(int(np.ceil(np.log2(starts))), 0))[:starts].T


@functools.partial(Compiled, static_argnames=("form", "smooth", "steps", "total"))
def descend(
    form: Form, smooth: float, steps: int, total: int, state: State, data: Data, box: Any, spread: Any
) -> tuple[State, Any, Any]:
    """Adam on the augmented Lagrangian, projected onto the box, for all starts at once.

    L = goal + Σᵢ (max(0, λᵢ + ρ·excessᵢ)² − λᵢ²)/2ρ, λᵢ ← max(0, λᵢ + ρ·excessᵢ) every few steps.

    Args:
        form: structure of the problem.
        smooth: smoothing of the maxima.
        steps: steps of this stage.
        total: steps of all stages, over which the step size falls.
        state: where the starts are.
        data: numbers of the problem.
        box: logarithms of the bounds, each (d, n).
        spread: parallel sizes of the starts.

    Returns:
        The state after it; goal and largest excess at every step, (steps, n).
    """
    low, high = box
    optimiser = _optimiser(total)

    def lagrangian(unit: Any, multipliers: Any) -> tuple[Any, Outcome]:
        found = outcome(form, data, low + unit * (high - low), spread, smooth)
        pushed = jnp.maximum(multipliers + _PENALTY * found.excess, 0.0)
        return jnp.sum(found.goal) + jnp.sum(pushed**2 - multipliers**2) / (2.0 * _PENALTY), found

    def step(state: State, count: Any) -> tuple[State, Any]:
        slope, found = jax.grad(lagrangian, has_aux=True)(state.unit, state.multipliers)
        with jax.numpy_dtype_promotion("standard"):  # optax raises floats to a count of int32
            change, memory = optimiser.update(slope, state.memory)
        unit = optax.projections.projection_box(optax.apply_updates(state.unit, change), 0.0, 1.0)
        pushed = jnp.maximum(state.multipliers + _PENALTY * found.excess, 0.0)
        multipliers = jnp.where(count % _UPDATE == _UPDATE - 1, pushed, state.multipliers)
        return State(unit, multipliers, memory), (found.goal, jnp.max(found.excess, axis=0))

    state, (goals, excess) = jax.lax.scan(step, state, jnp.arange(steps))
    return state, goals, excess


@functools.partial(Compiled, static_argnames="form")
def _merits(form: Form, data: Data, logs: Any, spread: Any) -> Any:
    found = outcome(form, data, logs, spread)
    merit = found.goal + BROKEN * jnp.maximum(jnp.max(found.excess, axis=0), 0.0)
    return jnp.where(jnp.isfinite(merit), merit, jnp.inf)


def judge(form: Form, data: Data, unit: np.ndarray, box: Any, choices: np.ndarray) -> np.ndarray:
    """What each choice of parallel sizes promises: the least merit of the exact model at the same designs for all.

    Args:
        form: structure of the problem.
        data: its numbers.
        unit: the designs in the unit box, (d, k).
        box: logarithms of the bounds of each choice, each (d, m).
        choices: the choices, (s, m).

    Returns:
        Goal and weighted excess, (m,); ∞ where no design has finite figures.
    """
    count, designs = choices.shape[1], unit.shape[1]
    each = max(_JUDGED // designs, 1)
    merits = []
    for start in range(0, count, each):
        rows = np.minimum(np.arange(start, start + each), count - 1)
        low, high = (end[:, rows, None] for end in box)
        logs = (low + unit[:, None, :] * (high - low)).reshape(unit.shape[0], -1)
        sizes = tuple(jnp.asarray(np.repeat(row[rows], designs))[None] for row in choices)
        merits.append(np.asarray(_merits(form, data, jnp.asarray(logs), sizes)).reshape(each, designs).min(axis=1))
    return np.concatenate(merits)[:count]


@functools.partial(Compiled, static_argnames="form", quick=True)
def _slopes(form: Form, data: Data, logs: Any, spread: Any) -> tuple[Outcome, Outcome]:
    return slopes(form, data, logs, spread)


def exact(form: Form, data: Data, logs: np.ndarray, spread: np.ndarray) -> tuple[Outcome, Outcome]:
    """Outcome of the exact model at a few points and its derivatives, as NumPy arrays.

    Args:
        form: structure of the problem.
        data: its numbers.
        logs: the points, (d, k).
        spread: their parallel sizes, (s, k).
    """
    count = logs.shape[1]
    fill = np.minimum(np.arange(max(count, WIDTH)), count - 1)  # one width, so that it compiles once
    sizes = tuple(jnp.asarray(row[fill])[None] for row in spread)
    return jax.tree.map(
        lambda leaf: np.asarray(leaf)[..., :count], _slopes(form, data, jnp.asarray(logs[:, fill]), sizes)
    )


WIDTH = 8
"""Points that are evaluated side by side where there are few."""

# ------------------------------------------------------------------------------------------------------------ polish

_EXCESS_WEIGHT = 100.0
"""Weight of broken limits in the merit of a point; more than any multiplier that a sensible limit has."""

_ENOUGH = 1e-7
"""Predicted gain of a step, in logarithms, at which the polish ends."""


_WORSE = 1e-3
"""Merit gap above which a start is tested for elimination by its lower bound."""


class Bundle:
    """Cutting planes of one start: what the exact model's values and slopes at the visited points say everywhere.

    Of a convex function every tangent is a lower bound, kinks included, so that the minimum of all of them, a linear
    program, is a lower bound of the optimum. Steps are kept within a trust region that adapts. Planes that lie above
    the value at the best point are moved down to it: that happens where the function is not convex.
    """

    def __init__(self, low: np.ndarray, high: np.ndarray, margin: float, feasibility_only: bool = False):
        self.low, self.high, self.margin, self.feasibility_only = low, high, margin, feasibility_only
        self.places: list[np.ndarray] = []
        self.goals: list[float] = []
        self.goal_slopes: list[np.ndarray] = []
        self.excess: list[np.ndarray] = []
        self.excess_slopes: list[np.ndarray] = []
        self.best = -1
        self.radius = 0.25
        self.predicted = np.inf
        self.done = False
        self.convex = True
        self.floor: float | None = None

    @property
    def feasible(self) -> bool:
        """True where the best point keeps all limits."""
        return self.best >= 0 and bool(self.excess[self.best].max() <= 0.0)

    def merit(self, i: int) -> float:
        """Goal and weighted excess of a visited point; excess alone where only that counts."""
        broken = max(float(self.excess[i].max()) + self.margin, -np.inf if self.feasibility_only else 0.0)
        return broken if self.feasibility_only else self.goals[i] + _EXCESS_WEIGHT * broken

    def settle(self) -> None:
        """Take the best visited point that keeps all limits where the best of all breaks one by a hair."""
        kept = [i for i, excess in enumerate(self.excess) if excess.max() <= 0.0]
        if kept and not self.feasible:
            self.best = min(kept, key=self.goals.__getitem__)

    def add(self, place: np.ndarray, goal: float, slope: np.ndarray, excess: np.ndarray, slopes: np.ndarray) -> None:
        """Note a visited point, and adapt the trust region to how well it was predicted."""
        if not (np.isfinite(goal) and np.isfinite(excess).all() and np.isfinite(slope).all()):
            self.radius /= 4.0
            return
        self.places.append(place)
        self.goals.append(goal)
        self.goal_slopes.append(slope)
        self.excess.append(excess)
        self.excess_slopes.append(slopes)
        new = len(self.places) - 1
        if self.best < 0:
            self.best = new
            return
        gain, hoped = self.merit(self.best) - self.merit(new), self.merit(self.best) - self.predicted
        if gain > 0.5 * hoped:
            self.radius = min(2.0 * self.radius, 2.0)
        elif gain < 0.1 * hoped:
            self.radius *= 0.5
        if gain > 0:
            self.best = new

    def solve(self, trust: bool, keep: int = 24) -> Any:
        """The linear program over the planes; variables are the place, the goal and the excess that is bought off."""
        from scipy.optimize import linprog

        d, centre = self.low.size, self.places[self.best]
        recent = sorted({self.best, *range(max(len(self.places) - keep, 0), len(self.places))})
        rows, bounds, owners = [], [], []
        for j in recent if trust else range(len(self.places)):
            away = centre - self.places[j]
            if not self.feasibility_only:
                lift = self.goals[j] + self.goal_slopes[j] @ away - self.goals[self.best]
                self.convex &= bool(lift <= 1e-5)
                offset = self.goals[j] - self.goal_slopes[j] @ self.places[j] - max(lift, 0.0)
                rows.append([*self.goal_slopes[j], -1.0, 0.0])
                bounds.append(-offset)
                owners.append(-1)
            for i, slope in enumerate(self.excess_slopes[j]):
                lift = self.excess[j][i] + slope @ away - self.excess[self.best][i]
                self.convex &= bool(lift <= 1e-5)
                if trust and self.excess[self.best][i] < -3.0 and not self.feasibility_only:
                    continue  # far from mattering
                offset = self.excess[j][i] - slope @ self.places[j] - max(lift, 0.0) + self.margin
                rows.append([*slope, 0.0, -1.0])
                bounds.append(-offset)
                owners.append(i)
        low, high = self.low, self.high
        if trust:
            low, high = np.maximum(low, centre - self.radius), np.minimum(high, centre + self.radius)
        box = [*zip(low, high, strict=True), (0.0, 0.0) if self.feasibility_only else (-1e3, 1e3)]
        box.append((-1e3, 1e3) if self.feasibility_only else (0.0, 1e3))
        cost = [*np.zeros(d), 1.0, 1.0 if self.feasibility_only else _EXCESS_WEIGHT]
        found = linprog(cost, np.array(rows), np.array(bounds), bounds=box, method="highs")
        return found, owners

    def propose(self) -> np.ndarray:
        """The next point to visit; the best one again when there is nothing to gain."""
        centre = self.places[self.best]
        if self.done or self.radius < 1e-9:
            self.done = True
            return centre
        found, _ = self.solve(trust=True)
        if not found.success:
            self.done = True
            return centre
        self.predicted = float(found.fun)
        if self.merit(self.best) - self.predicted < _ENOUGH:
            self.done = True
            return centre
        return np.clip(found.x[: self.low.size], self.low, self.high)

    def rule_out(self, rival: float) -> None:
        """End here, with the lower bound as `floor`, where the planes say that the optimum is worse than a rival's."""
        if self.done or not self.convex or self.feasibility_only or self.merit(self.best) < rival + _WORSE:
            return
        found, _ = self.solve(trust=False)
        if found.success and self.convex and found.fun > rival + _ENOUGH:
            self.floor, self.done = float(found.fun), True

    def certificate(self, limits: int) -> tuple[float, np.ndarray, np.ndarray]:
        """Lower bound of the merit, and the multipliers of the limits and of the box (below 0 at the upper end)."""
        found, owners = self.solve(trust=False)
        if not found.success:
            return -np.inf, np.full(limits, np.nan), np.full(self.low.size, np.nan)
        duals = np.zeros(limits)
        for owner, dual in zip(owners, -np.asarray(found.ineqlin.marginals), strict=True):
            if owner >= 0:
                duals[owner] += dual
        d = self.low.size
        return float(found.fun), duals, (found.lower.marginals + found.upper.marginals)[:d]


def polish(
    form: Form,
    data: Data,
    logs: np.ndarray,
    spread: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    margin: float,
    most: int = 60,
    feasibility_only: bool = False,
) -> tuple[list[Bundle], int]:
    """Improve points by cutting planes on the exact model, each by its own bundle, until it cannot be the best.

    Args:
        form: structure of the problem.
        data: its numbers.
        logs: the points, (d, k).
        spread: their parallel sizes, (s, k).
        low: logarithms of the lower bounds of each, (d, k).
        high: logarithms of the upper bounds.
        margin: by how much limits must be kept, in logarithms, for rounding.
        most: steps at most.
        feasibility_only: only make the largest excess small.

    Returns:
        The bundles, and the evaluations that each has had.
    """
    count = logs.shape[1]
    bundles = [Bundle(low[:, k], high[:, k], margin, feasibility_only) for k in range(count)]
    at, rounds = np.clip(logs, low, high), 0
    while rounds < most:
        rounds += 1
        found, change = exact(form, data, at, spread)
        for k, bundle in enumerate(bundles):
            if not bundle.done:
                bundle.add(
                    np.array(at[:, k], float),
                    float(found.goal[k]),
                    np.array(change.goal[:, k], float),
                    np.array(found.excess[:, k], float),
                    np.array(change.excess[:, :, k], float).T,
                )
        if all(bundle.best < 0 for bundle in bundles):
            break
        rival = min((bundle.goals[bundle.best] for bundle in bundles if bundle.feasible), default=np.inf)
        for bundle in bundles:
            if bundle.best >= 0:
                bundle.rule_out(rival)
        at = np.stack([b.propose() if b.best >= 0 else at[:, k] for k, b in enumerate(bundles)], axis=1)
        if all(bundle.done or bundle.best < 0 for bundle in bundles):
            break
    for bundle in bundles:
        bundle.settle()
    return bundles, rounds
