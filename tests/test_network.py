"""Collectives against simulations of their steps, and against the published closed forms."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

import genz_jax as gz
from genz_jax.machine.network import network_time, too_small
from genz_jax.work.operators import collectives

FP8 = gz.Precision("fp8")
KINDS = ["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "point_to_point"]
OVERHEAD = 5e-6

Level = tuple[int, float, float]
"""Devices that a level joins, bandwidth in byte s-1, latency in s."""


def network(levels: list[Level], efficiency: float = 1.0) -> gz.Platform:
    made = tuple(gz.specs.NetworkLevel(*level) for level in levels)
    return gz.Platform(1e15, 1e12, 1e11, network=made, collective_overhead=OVERHEAD, link_efficiency=efficiency)


def ours(kind: str, nbytes: float, ranks: float, platform: gz.Platform, stride: float = 1.0) -> float:
    op = getattr(collectives, kind)("c", "pipeline", elements=nbytes, ranks=ranks, precision=FP8, stride=stride)
    return float(network_time(op, platform))


class Ranks:
    """Ranks with real tensors that are sent along rings, and the time that the sends take."""

    def __init__(self, ranks: int, nbytes: float, levels: list[Level], stride: int):
        joined = [1] + [min(max(size // stride, 1), ranks) for size, _, _ in levels]
        self.parts = [high // low for low, high in itertools.pairwise(joined)]
        assert math.prod(self.parts) == ranks
        self.levels, self.ranks = levels, ranks
        rng = np.random.default_rng(ranks)
        self.given = rng.integers(0, 9, (ranks, ranks)).astype(float)
        self.bytes_per_element = nbytes / ranks
        self.held = [dict(enumerate(row)) for row in self.given]
        self.time = OVERHEAD

    def rings(self, level: int):
        """Groups of ranks that differ in their place at one level alone."""
        inner = math.prod(self.parts[:level])
        n = self.parts[level]
        for start in range(self.ranks):
            if start // inner % n == 0:
                yield [start + k * inner for k in range(n)]

    def _step(self, level: int, sent: int):
        _, bandwidth, latency = self.levels[level]
        self.time += latency + sent * self.bytes_per_element / bandwidth

    def reduce_scatter(self, level: int):
        """Each rank of a ring ends with the sum of its share of what the ranks hold."""
        n = self.parts[level]
        for step in range(n - 1):
            sent = 0
            for ring in self.rings(level):
                keys = sorted(self.held[ring[0]])
                shares = np.array_split(keys, n)
                messages = [
                    {key: self.held[rank][key] for key in shares[(i - step - 1) % n]} for i, rank in enumerate(ring)
                ]
                for i, message in enumerate(messages):
                    for key, value in message.items():
                        self.held[ring[(i + 1) % n]][key] += value
                    sent = len(message)
            self._step(level, sent)
        if n > 1:
            for ring in self.rings(level):
                shares = np.array_split(sorted(self.held[ring[0]]), n)
                for i, rank in enumerate(ring):
                    self.held[rank] = {key: self.held[rank][key] for key in shares[i]}

    def all_gather(self, level: int):
        """Each rank of a ring ends with what any of them holds."""
        n = self.parts[level]
        for step in range(n - 1):
            sent = 0
            for ring in self.rings(level):
                own = [dict(self.held[rank]) for rank in ring] if step == 0 else self.passing[ring[0]]
                for i, message in enumerate(own):
                    self.held[ring[(i + 1) % n]] |= message
                    sent = len(message)
                if step == 0:
                    self.passing = getattr(self, "passing", {})
                self.passing[ring[0]] = [own[i - 1] for i in range(n)]
            self._step(level, sent)


def hierarchies() -> st.SearchStrategy[tuple[list[int], int]]:
    """Parts at each level, and the stride between ranks."""
    return st.tuples(st.lists(st.sampled_from([1, 2, 3, 4]), min_size=1, max_size=3), st.sampled_from([1, 2, 4]))


def levels_of(parts: list[int], stride: int) -> list[Level]:
    sizes = np.cumprod(parts) * stride
    return [(int(size), 4e11 / 3**i, 1e-6 * (i + 1)) for i, size in enumerate(sizes)]


@pytest.mark.slow
@given(hierarchies(), st.sampled_from([1e3, 1e6, 3.7e9]))
def test_reductions_and_gathers_take_the_time_of_their_steps(shape: tuple[list[int], int], nbytes: float):
    parts, stride = shape
    ranks, levels = math.prod(parts), levels_of(parts, stride)
    platform = network(levels)

    scattered = Ranks(ranks, nbytes, levels, stride)
    for level in range(len(levels)):
        scattered.reduce_scatter(level)
    total = scattered.given.sum(axis=0)
    assert all(value == total[key] for held in scattered.held for key, value in held.items())
    assert sorted(key for held in scattered.held for key in held) == list(range(ranks))
    expected = scattered.time if ranks > 1 else 0.0
    assert ours("reduce_scatter", nbytes, ranks, platform, stride) == pytest.approx(expected, rel=1e-12)

    reduced = scattered
    for level in reversed(range(len(levels))):
        reduced.all_gather(level)
    assert all(held == dict(enumerate(total)) for held in reduced.held)
    expected = reduced.time if ranks > 1 else 0.0
    assert ours("all_reduce", nbytes, ranks, platform, stride) == pytest.approx(expected, rel=1e-12)

    gathered = Ranks(ranks, nbytes, levels, stride)
    places = np.arange(ranks).reshape(parts[::-1]).transpose(range(len(parts))[::-1]).ravel()
    gathered.held = [{int(np.flatnonzero(places == rank)[0]): float(rank)} for rank in range(ranks)]
    for level in reversed(range(len(levels))):
        gathered.all_gather(level)
    assert all(len(held) == ranks for held in gathered.held)
    expected = gathered.time if ranks > 1 else 0.0
    assert ours("all_gather", nbytes, ranks, platform, stride) == pytest.approx(expected, rel=1e-12)


@given(hierarchies(), st.sampled_from([1e3, 1e6, 3.7e9]))
def test_all_to_all_takes_the_time_of_its_messages(shape: tuple[list[int], int], nbytes: float):
    parts, stride = shape
    ranks, levels = math.prod(parts), levels_of(parts, stride)
    time, inside = OVERHEAD, 1
    for size, bandwidth, latency in levels:
        domain = min(size // stride, ranks)
        # Rank 0 sends one message to each group of this level that it is not in, with what is for the group's ranks.
        groups: dict[int, int] = {}
        for other in range(1, domain):
            if other // inside != 0:
                groups[other // inside] = groups.get(other // inside, 0) + 1
        time += sum(latency + members * nbytes / ranks / bandwidth for members in groups.values())
        inside = domain
    expected = time if ranks > 1 else 0.0
    assert ours("all_to_all", nbytes, ranks, network(levels), stride) == pytest.approx(expected, rel=1e-12)


@given(
    st.integers(2, 40),
    st.sampled_from([1, 2, 4, 8, 16]),
    st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=3),
)
def test_a_chain_takes_the_mean_of_its_hops(ranks: int, stride: int, growth: list[int]):
    sizes = np.cumprod([8, *growth])
    levels = [(int(size), 4e11 / 3**i, 1e-6 * (i + 1)) for i, size in enumerate(sizes)]
    nbytes, hops = 1e6, []
    for k in range(ranks - 1):
        here, there = k * stride, (k + 1) * stride
        joining = (level for level in levels if here // level[0] == there // level[0])
        _, bandwidth, latency = next(joining, levels[-1])
        hops.append(latency + nbytes / bandwidth)
    assert ours("point_to_point", nbytes, ranks, network(levels), stride) == pytest.approx(np.mean(hops), rel=1e-12)


@given(st.integers(2, 4096), st.floats(1, 1e10), st.floats(1e8, 1e13), st.floats(0, 1e-4))
def test_one_level_has_the_published_forms(n: int, d: float, bandwidth: float, latency: float):
    platform = network([(4096, bandwidth, latency)])
    ring = (n - 1) * latency + (n - 1) / n * d / bandwidth
    published = {
        "all_reduce": OVERHEAD + 2 * ring,
        "all_gather": OVERHEAD + ring,
        "reduce_scatter": OVERHEAD + ring,
        "all_to_all": OVERHEAD + ring,
        "point_to_point": latency + d / bandwidth,
    }
    for kind, expected in published.items():
        assert ours(kind, d, n, platform) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_sent_by_one_rank_or_without_a_message(kind: str):
    platform = network([(8, 1e11, 1e-6), (64, 1e10, 5e-6)])
    assert ours(kind, 1e6, 1, platform) == 0.0
    assert ours(kind, 0.0, 8, platform) == 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_links_run_at_their_efficiency(kind: str):
    levels: list[Level] = [(8, 1e11, 0.0), (64, 1e10, 0.0)]
    fixed = 0.0 if kind == "point_to_point" else OVERHEAD
    full, half = (ours(kind, 1e9, 64, network(levels, efficiency)) - fixed for efficiency in (1.0, 0.5))
    assert half == pytest.approx(2 * full, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_a_level_that_joins_nothing_new_changes_nothing(kind: str, data: st.DataObject):
    ranks = data.draw(st.sampled_from([2, 4, 8, 64]))
    levels: list[Level] = [(8, 1e11, 1e-6), (64, 1e10, 5e-6)]
    for extra in ([(1, 1e12, 1e-7), *levels], [*levels, levels[-1]], [*levels, (4096, 1e9, 1e-5)]):
        assert ours(kind, 1e6, ranks, network(extra)) == pytest.approx(
            ours(kind, 1e6, ranks, network(levels)), rel=1e-14
        )


@pytest.mark.parametrize("kind", KINDS)
def test_more_ranks_never_take_less_time(kind: str):
    platform = network([(8, 1e11, 1e-6), (72, 5e10, 2e-6), (4096, 1e10, 5e-6)])
    ranks = np.arange(2.0, 300.0)
    op: Any = getattr(collectives, kind)("c", "pipeline", elements=1e8, ranks=ranks, precision=FP8)
    times = np.asarray(network_time(op, platform) * op.repeats)
    assert times.shape == ranks.shape
    assert np.all(np.diff(times) >= -1e-15)


def test_too_many_devices_for_the_network():
    platform = network([(8, 1e11, 1e-6), (64, 1e10, 5e-6)])
    assert [bool(too_small(float(n), platform)) for n in (1, 8, 64, 65)] == [False, False, False, True]
    assert not bool(too_small(2.0, network([(64, 1e11, 1e-6), (8, 1e10, 5e-6)])))


MIXED = ["H100-SXM", "TPU-v5p"]
SWITCHED = ["all_reduce", "all_gather", "reduce_scatter", "all_to_all"]


@pytest.mark.parametrize("kind", SWITCHED)
@pytest.mark.parametrize("ranks", [1, 2, 4, 8, 64])
def test_on_a_switch_every_rank_is_one_hop_away(kind, ranks):
    # The bandwidth term is that of the ring; an all-reduce goes to the switch and back twice.
    latency, nbytes = 3e-6, 1e6
    ring = gz.specs.NetworkLevel(64, 1e11, 0.0)
    carried = ours(kind, nbytes, ranks, gz.Platform(1e15, 1e12, 1e11, network=(ring,), collective_overhead=OVERHEAD))
    level = gz.specs.NetworkLevel(64, 1e11, latency, "switch")
    found = ours(kind, nbytes, ranks, gz.Platform(1e15, 1e12, 1e11, network=(level,), collective_overhead=OVERHEAD))
    hops = (2 if kind == "all_reduce" else 1) if ranks > 1 else 0
    assert found == pytest.approx(carried + hops * latency, rel=1e-6)


def test_two_switches_take_the_hops_of_both():
    levels = (gz.specs.NetworkLevel(8, 1e30, 1e-6, "switch"), gz.specs.NetworkLevel(64, 1e30, 5e-6, "switch"))
    platform = gz.Platform(1e15, 1e12, 1e11, network=levels, collective_overhead=0)
    assert ours("all_reduce", 1e6, 16, platform) == pytest.approx(2 * 1e-6 + 2 * 5e-6, rel=1e-6)
    assert ours("all_reduce", 1e6, 8, platform) == pytest.approx(2 * 1e-6, rel=1e-6)


@pytest.mark.slow
def test_genz_knows_rings_alone():
    chip = gz.platform("H100-SXM")
    rings = chip.replace(**{f"network.{i}.topology": "ring" for i in range(len(chip.network))})
    asked: dict[str, Any] = dict(workload=gz.Workload(1, 512, 16), parallelism=gz.Parallelism(tp=8))
    published = [float(gz.estimate("llama-3.1-8b", p, assumptions="genz", **asked).tpot) for p in (chip, rings)]
    assert published[0] == published[1]
    ours_ = [float(gz.estimate("llama-3.1-8b", p, **asked).tpot) for p in (chip, rings)]
    assert ours_[0] < ours_[1]


@pytest.mark.first(1)
@pytest.mark.parametrize("name", ["GB200", "H100-SXM", "MI300X"])
def test_more_tensor_parallel_ranks_are_not_slower_on_a_switch(name):
    chip = gz.platform(name).replace(mem_capacity="1 TB")
    ds = gz.sweep("llama-3.1-70b", chip, gz.Workload(1, 1024, 128), gz.Parallelism(tp=gz.axis([1, 2, 4, 8])),
                  figures=["tpot"])  # fmt: skip
    assert (np.diff(ds.tpot.values) < 0).all()


@pytest.mark.slow
def test_topologies_are_an_axis_and_mix_in_a_list():
    level = gz.specs.NetworkLevel(8, "450 GB/s", "1 us", gz.axis([0, 1]))
    chip = gz.platform("H100-SXM").replace(network=(level,))
    ds = gz.sweep("llama-3.1-8b", chip, gz.Workload(1, 64, 4), gz.Parallelism(tp=8), figures=["tpot"])
    assert float(ds.tpot[1]) < float(ds.tpot[0])
    mixed = gz.sweep("llama-3.1-8b", MIXED, gz.Workload(1, 64, 4), gz.Parallelism(tp=8), figures=["tpot"])
    for name in MIXED:
        one = gz.estimate("llama-3.1-8b", name, gz.Workload(1, 64, 4), gz.Parallelism(tp=8))
        assert float(mixed.tpot.sel(platform=name)) == pytest.approx(float(one.tpot), rel=1e-6)
    assert "switch" in str(gz.platform("H100-SXM"))
    with pytest.raises(ValueError, match=r"NetworkLevel\.topology = 'mesh': must be 'ring' \(0\) or 'switch' \(1\)"):
        gz.specs.NetworkLevel(8, 1e11, 1e-6, "mesh")
