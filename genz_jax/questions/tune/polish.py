"""From starts that have descended to one design of the exact model: which are polished, and whole batches."""

import dataclasses
from collections.abc import Callable
from typing import NoReturn

import numpy as np

from genz_jax.questions.tune.problem import Data, Form
from genz_jax.questions.tune.search import BROKEN, WIDTH, Bundle, polish

BESIDE = 4
"""Whole batches that are tried beside a real one."""

NEAR = 0.02
"""By how much the logarithm of a goal may lie above the best after the descent, and its choice still be polished.

A descent of 180 steps ends within 1 % of the optimum from most starts, and the best start of a choice counts."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A design: its cutting planes, the start that it came from, and the steps of its polish."""

    bundle: Bundle
    start: int
    rounds: int

    @property
    def goal(self) -> float:
        """The goal as it is minimised; ∞ where a limit is broken."""
        return self.bundle.goals[self.bundle.best] if self.bundle.feasible else np.inf

    @property
    def least(self) -> float:
        """What the goal could still become: the lower bound by which it was ruled out, else itself."""
        return self.goal if self.bundle.floor is None else self.bundle.floor

    @property
    def place(self) -> np.ndarray:
        """Logarithms of the variables."""
        return self.bundle.places[self.bundle.best]


@dataclasses.dataclass(frozen=True)
class Polished:
    """The best design, the steps of the polish of all, and all starts from best to worst."""

    best: Candidate
    rounds: int
    ranks: np.ndarray


class Polisher:
    """Polish of the best starts of a problem.

    Attributes:
        form: structure of the problem.
        data: its numbers.
        margin: by how much limits must be kept, in logarithms, for rounding.
        box: logarithms of the bounds of points with given parallel sizes, each (d, k).
        fail: raises the error that says which limits the nearest designs miss.
    """

    def __init__(
        self,
        form: Form,
        data: Data,
        margin: float,
        box: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
        fail: Callable[[list[Bundle], np.ndarray], NoReturn],
    ):
        self.form, self.data, self.margin, self.box, self.fail = form, data, margin, box, fail

    def polish(self, logs: np.ndarray, spread: np.ndarray, goal: np.ndarray, worst: np.ndarray) -> Polished:
        """The best design of the exact model, with a whole batch where that is tuned.

        Args:
            logs: where the starts have ended, (d, n).
            spread: their parallel sizes, (s, n).
            goal: their goals, (n,).
            worst: their largest excess, (n,).

        Raises:
            Infeasible: none keeps all limits.
        """
        merit = np.where(np.isfinite(goal), goal + BROKEN * np.maximum(worst, 0.0), np.inf)
        ranks = np.argsort(merit, kind="stable")
        order, distinct = each_choice_first(ranks, spread)
        found: list[Candidate] = []
        rounds = done = 0
        while done < len(order):
            best = min((c.goal for c in found), default=np.inf)
            # After the first wave, only choices whose descent has come too near the optimum to rule them out.
            if done and (done >= distinct or not merit[order[done]] <= best + NEAR):
                break
            picks, done = order[done : done + WIDTH], done + WIDTH
            more, steps = self._from(logs[:, picks], spread, picks)
            found, rounds = found + more, rounds + steps
        if not any(c.bundle.feasible for c in found):
            found, rounds = self._repair(logs, spread, worst, rounds)
        best = min(found, key=lambda c: c.goal)
        if "workload.batch" in self.form.variables:
            best, more = self._round(found, spread)
            rounds += more
        return Polished(best, rounds, ranks)

    def _from(self, logs: np.ndarray, spread: np.ndarray, picks: list[int]) -> tuple[list[Candidate], int]:
        """Designs that keep all limits or were ruled out, from these places of these starts, and the steps."""
        bundles, rounds = polish(self.form, self.data, logs, spread[:, picks], *self.box(spread[:, picks]), self.margin)
        pairs = zip(bundles, picks, strict=True)
        return [Candidate(b, pick, rounds) for b, pick in pairs if b.feasible or b.floor is not None], rounds

    def _repair(
        self, logs: np.ndarray, spread: np.ndarray, worst: np.ndarray, rounds: int
    ) -> tuple[list[Candidate], int]:
        """Designs that keep all limits, from the starts that came nearest to it."""
        ranks = np.argsort(np.where(np.isfinite(worst), worst, np.inf), kind="stable")
        picks = each_choice_first(ranks, spread)[0][:WIDTH]
        box = self.box(spread[:, picks])
        options = (self.data, logs[:, picks], spread[:, picks], *box, self.margin)
        nearest, first = polish(self.form, *options, feasibility_only=True)
        inside = [k for k, bundle in enumerate(nearest) if bundle.feasible]
        if not inside:
            self.fail(nearest, spread[:, picks])
        places = np.stack([nearest[k].places[nearest[k].best] for k in inside], axis=1)
        found, then = self._from(places, spread, [picks[k] for k in inside])
        if not found:
            raise RuntimeError("tune: the polish has left the feasible designs that it began at")
        return [dataclasses.replace(c, rounds=first + then) for c in found], rounds + first + then

    def _round(self, found: list[Candidate], spread: np.ndarray) -> tuple[Candidate, int]:
        """The best with a whole batch: whole numbers beside the best real ones, then around the best of these.

        No whole batch beats the optimum of its choice of parallel sizes with a real one, so that choices whose real
        optimum, or a lower bound of it, is worse than a whole one of another are left out.
        """
        firsts: dict[tuple[float, ...], Candidate] = {}
        for candidate in sorted(found, key=lambda c: (c.bundle.floor is not None, c.least)):
            firsts.setdefault(tuple(spread[:, candidate.start]), candidate)
        waiting = sorted(firsts.values(), key=lambda c: c.least)
        whole: list[Candidate] = []
        tried: list[Bundle] = []
        of: list[int] = []
        rounds = 0
        while waiting and waiting[0].least < min((c.goal for c in whole), default=np.inf):
            if waiting[0].bundle.floor is not None:
                again = waiting.pop(0)
                more, steps = self._from(again.place[:, None], spread, [again.start])
                waiting, rounds = sorted(waiting + more, key=lambda c: c.least), rounds + steps
                continue
            wave = [c for c in waiting if c.bundle.floor is None][: WIDTH // BESIDE]
            waiting = [c for c in waiting if c not in wave]
            tries = [(c, n) for c in wave for n in whole_beside(self._batch(c), *self._batches(c, spread))]
            bundles, added, more = self._at_batches(tries, spread)
            rounds, tried, of, whole = rounds + more, tried + bundles, of + [c.start for c, _ in tries], whole + added
        if not whole:
            self.fail(tried, spread[:, of])
        best, more = self._climb(min(whole, key=lambda c: c.goal), spread)
        return best, rounds + more

    def _climb(self, best: Candidate, spread: np.ndarray) -> tuple[Candidate, int]:
        """The best of the whole batches around one, around the best of these and so on.

        What depends on whole passes and blocks rises and falls from one batch to the next.
        """
        rounds, seen = 0, {round(self._batch(best))}
        while True:
            least, most = self._batches(best, spread)
            middle = round(self._batch(best))
            around = range(middle - WIDTH // 2, middle + WIDTH // 2 + 1)
            fresh = [float(n) for n in around if least <= n <= most and n not in seen]
            if not fresh:
                return best, rounds
            seen |= set(fresh)
            _, added, more = self._at_batches([(best, n) for n in fresh], spread)
            rounds += more
            better = min(added, key=lambda c: c.goal, default=best)
            if better.goal >= best.goal:
                return best, rounds
            best = better

    def _batch(self, candidate: Candidate) -> float:
        return float(np.exp(candidate.place[self.form.variables.index("workload.batch")]))

    def _batches(self, candidate: Candidate, spread: np.ndarray) -> tuple[float, float]:
        """The least and the greatest whole batch of a candidate's choice of parallel sizes."""
        at = self.form.variables.index("workload.batch")
        low, high = (float(np.exp(end[at, 0])) for end in self.box(spread[:, [candidate.start]]))
        return float(np.ceil(low * (1 - 1e-6))), float(np.floor(high * (1 + 1e-6)))

    def _at_batches(
        self, tries: list[tuple[Candidate, float]], spread: np.ndarray
    ) -> tuple[list[Bundle], list[Candidate], int]:
        """Candidates polished anew with given batches: all, those that keep all limits, and the steps."""
        at = self.form.variables.index("workload.batch")
        logs, starts = np.stack([c.place for c, _ in tries], axis=1), [c.start for c, _ in tries]
        logs[at] = np.log([n for _, n in tries])
        low, high = self.box(spread[:, starts])
        low[at] = high[at] = logs[at]
        bundles, steps = polish(self.form, self.data, logs, spread[:, starts], low, high, self.margin)
        pairs = zip(bundles, tries, strict=True)
        return bundles, [Candidate(b, c.start, c.rounds + steps) for b, (c, _) in pairs if b.feasible], steps


def each_choice_first(ranks: np.ndarray, spread: np.ndarray) -> tuple[list[int], int]:
    """Starts from best to worst, the best of each choice of parallel sizes before all others; how many choices.

    Args:
        ranks: the starts from best to worst.
        spread: parallel sizes of the starts, (s, n).
    """
    _, first = np.unique(spread[:, ranks], axis=1, return_index=True)
    first = np.sort(first)
    return [*map(int, ranks[first]), *map(int, np.delete(ranks, first))], first.size


def whole_beside(batch: float, least: float, most: float) -> list[float]:
    """Whole numbers beside a batch and within bounds: two on either side, or itself and one on either side."""
    below, above = np.floor(batch * (1 + 1e-6)), np.ceil(batch * (1 - 1e-6))
    return sorted({float(np.clip(n, least, most)) for n in (below - 1, below, above, above + 1)})
