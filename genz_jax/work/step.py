"""A forward pass as the layers see it: which tokens, which context, how it is spread."""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp

from genz_jax.base import arrays as xp
from genz_jax.base.fields import Number, Record
from genz_jax.specs import Engine, Parallelism, Precision
from genz_jax.specs.assumptions import Assumptions

Quotient = Callable[[Number, Number], Number]
"""A function of a size and the number of its parts."""


def _with_slope_of(smooth: Quotient) -> Callable[[Quotient], Quotient]:
    """Give the decorated function the derivative of another that it rounds (the straight-through estimator of arXiv
    1308.3432)."""

    def decorate(whole: Quotient) -> Quotient:
        exact = jax.custom_jvp(whole)
        exact.defjvp(lambda primals, tangents: (exact(*primals), jax.jvp(smooth, primals, tangents)[1]))
        traced_once = jax.jit(exact, inline=True)

        @functools.wraps(whole)
        def function(size: Number, parts: Number) -> Number:
            in_jax = isinstance(size, jax.Array) or isinstance(parts, jax.Array)
            return traced_once(size, parts) if in_jax else whole(size, parts)

        return function

    return decorate


@_with_slope_of(operator.truediv)
def floor_div(size: Number, parts: Number) -> Number:
    """⌊size/parts⌋, exact for whole numbers below 2^24 also where division rounds; its derivative is of size/parts."""
    quotient = xp.floor(size / parts)
    too_large, too_small = quotient * parts > size, (quotient + 1.0) * parts <= size
    return xp.where(too_large, quotient - 1.0, xp.where(too_small, quotient + 1.0, quotient))


@_with_slope_of(operator.truediv)
def ceil_div(size: Number, parts: Number) -> Number:
    """⌈size/parts⌉, exact and with a derivative like `floor_div`."""
    quotient = xp.ceil(size / parts)
    too_large, too_small = (quotient - 1.0) * parts >= size, quotient * parts < size
    return xp.where(too_large, quotient - 1.0, xp.where(too_small, quotient + 1.0, quotient))


@_with_slope_of(lambda size, ranks: jnp.maximum(size / ranks, 1.0))
def shard(size: Number, ranks: Number) -> Number:
    """Size of the largest of `ranks` parts, at least 1: max(⌈size/ranks⌉, 1); its derivative is of max(size/ranks, 1).

    Sizes whose ranks each have one part, as replicated key-value heads do, do not change with either.
    """
    return xp.maximum(ceil_div(size, ranks), 1.0)


class Deployment(Record):
    """How the model is spread and stored, and which physics counts."""

    parallelism: Parallelism
    precision: Precision
    assumptions: Assumptions = eqx.field(static=True)
    engine: Engine | None = None

    @property
    def bounded(self) -> bool:
        """A prefill may take several passes; without an engine it is one."""
        return self.assumptions.prefill == "bounded" and self.engine is not None and not self.engine.single_pass

    @property
    def ranks(self) -> Number:
        """Devices that share a layer: tp · ep. Attention, embeddings and dense layers are split over all of them."""
        return self.parallelism.tp * self.parallelism.ep

    @property
    def cp(self) -> Number:
        """Ranks that share the tokens of a prompt and its KV cache."""
        return 1.0 if self.parallelism.cp is None else self.parallelism.cp


class Segment(Record):
    """Queries of a step against one contiguous part of the context.

    Attributes:
        name: prefix of its operators' names.
        kernel: prefix of the name of the kernel that it shares with other segments.
        prefill: the queries are the newest part of the context; else the context lies before them.
        prompt: context parallel ranks split the queries and pass keys and values around, as in prefill; otherwise they
            split the KV cache, as in decode.
        grows: what of it grows as a sequence is generated: its `context`, or what is `newer`; or nothing.
        batch: sequences.
        queries: queries of each.
        context: tokens of that part.
        newer: tokens between that part and the queries.
        parts: context parallel ranks.
        limit: tokens of a pass at most, where a prompt may take several passes.
        both_ways: 1 where queries see the tokens after them too, 0 where not; None for causal models alone.
    """

    name: str = eqx.field(static=True)
    prefill: bool = eqx.field(static=True)
    batch: Number
    queries: Number
    context: Number
    newer: Number = 0.0
    kernel: str = eqx.field(static=True, default="")
    prompt: bool = eqx.field(static=True, default=False)
    grows: Literal["", "context", "newer"] = eqx.field(static=True, default="")
    parts: Number = 1.0
    limit: Number | None = None
    both_ways: Number | None = None

    def at(self, generated: Number) -> "Segment":
        """This segment when that many tokens have been generated, the query's own included."""
        if not self.grows:
            return self
        return eqx.tree_at(lambda s: getattr(s, self.grows), self, generated)

    @property
    def own_queries(self) -> Number:
        """Queries of a sequence on one context parallel rank."""
        return self.queries / self.parts if self.prompt else self.queries

    @property
    def own_share(self) -> Number:
        """Part of the tokens seen that a context parallel rank keeps in its cache."""
        return 1.0 / self.parts if self.prompt else 1.0

    def seen(self, window: Number | None, assumptions: Assumptions) -> tuple[Number, Number]:
        """Tokens of the context that a rank's queries read, and (query, key) pairs of a sequence and head.

        Context parallel ranks each have an equal share of the pairs: queries are dealt out so that causality leaves no
        rank with less work (arXiv 2411.01783).

        With causality, query i of a prompt chunk sees the past p and i tokens of the chunk, at most `window` in all:
        pairs = Σᵢ min(p + i, w) = c·p + c(c+1)/2 + (q − c)·w with c = clip(w − p, 0, q) queries short of the window.
        """
        context, pairs = self._seen(window, assumptions)
        return (context if self.prompt else context / self.parts), pairs / self.parts

    def reread(self, window: Number | None) -> Number:
        """Tokens of the context that later passes of a prompt read again, of a sequence.

        The m = ⌈queries/T⌉ passes of a prompt each read the cache before their tokens: Σₖ min(p + k·T, w − 1) for
        k = 1 … m − 1 after p past tokens. A prompt that a boundary between passes cuts though T is longer is left out:
        its keys are less than T/2 of a pass's tokens.
        """
        if self.limit is None:
            return 0.0
        past, later = self.context - self.queries, xp.maximum(ceil_div(self.queries, self.limit) - 1.0, 0.0)
        if window is None:
            return later * past + self.limit * later * (later + 1.0) / 2.0
        short = xp.clip(floor_div(window - 1.0 - past, self.limit), 0.0, later)
        return short * past + self.limit * short * (short + 1.0) / 2.0 + (later - short) * (window - 1.0)

    def _seen(self, window: Number | None, assumptions: Assumptions) -> tuple[Number, Number]:
        """Tokens and pairs of all context parallel ranks together."""
        if not assumptions.causal:
            return self.context, self.queries * self.context
        if not self.prefill:
            context = self.context if window is None else self._inside(window)
            return context, self.queries * context
        past, queries = self.context - self.queries, self.queries
        if window is None:
            pairs = queries * past + queries * (queries + 1.0) / 2.0
            return self.context, self._either(pairs, queries * self.context)
        short = xp.clip(window - past, 0.0, queries)
        pairs = short * past + short * (short + 1.0) / 2.0 + (queries - short) * window
        # Both ways a window reaches (window − 1)/2 tokens to each side, as far as there are any.
        side = xp.minimum((window - 1.0) / 2.0, queries - 1.0)
        both = queries + 2.0 * (queries * side - side * (side + 1.0) / 2.0)
        return xp.minimum(self.context, queries + window - 1.0), self._either(pairs, both)

    def _inside(self, window: Number) -> Number:
        """Tokens of the context that a window still holds: window − newer, from none to all of them.

        A mean over positions has ranges that end where a window is just full, with the slope of the range there.
        """
        left = window - self.newer
        full = left > self.context if self.grows == "context" else left >= self.context
        return xp.where(left <= 0.0, 0.0, xp.where(full, self.context, left))

    def _either(self, causal: Number, both: Number) -> Number:
        """Pairs of a causal model, or of one that sees both ways."""
        return causal if self.both_ways is None else causal + self.both_ways * (both - causal)


class Step(Record):
    """One forward pass of one micro-batch.

    Attributes:
        mode: prefill, decode, a chunked mix of both, or encode, which samples and caches nothing.
        sequences: batch of the linear layers.
        tokens: tokens of each.
        embedded: tokens of each that come as token ids.
        sampled: tokens of each that are sampled from.
        states: sequences with a recurrent state, all together.
        resumed: share of these that go on from an earlier state.
        segments: what attention does.
        positions: first and last number of generated tokens of the decode positions that it is the mean of; None for
            a pass at one position.
    """

    mode: Literal["prefill", "decode", "chunked", "encode"] = eqx.field(static=True)
    sequences: Number
    tokens: Number
    embedded: Number
    sampled: Number
    states: Number
    segments: tuple[Segment, ...]
    positions: tuple[Number, Number] | None = None
    resumed: Number = 1.0

    @property
    def rows(self) -> Number:
        """Tokens in all."""
        return self.sequences * self.tokens

    def resident(self, assumptions: Assumptions, segments: Sequence[Segment] = ()) -> str:
        """Tensors of linear layers, or of attention to some segments, that stay on chip in decode, as initials."""
        prefill = any(segment.prefill for segment in segments) if segments else self.mode in ("prefill", "encode")
        return "io" if assumptions.decode_activations_on_chip and not prefill else ""
