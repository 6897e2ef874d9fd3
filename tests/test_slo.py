"""Service level objectives against what `estimate` says."""

import numpy as np
import pytest

import genz_jax as gz


def test_limits_are_read_with_units_and_absent_ones_are_left_out():
    slo = gz.SLO(ttft="200 ms", tpot="10 ms")
    assert {name: float(limit) for name, limit in slo.limits().items()} == {"ttft": 0.2, "tpot": 0.01}


def test_use_is_the_share_of_each_limit_and_met_where_none_exceeds_it():
    result = gz.estimate("llama-3.1-8b", "H100-SXM", gz.Workload(batch=8, input_tokens=512))
    exact = gz.SLO(result.ttft, result.tpot, result.latency, result.throughput, result.interactivity)
    np.testing.assert_allclose(list(exact.use(result).values()), 1.0, rtol=1e-12)
    assert bool(gz.SLO(ttft=2 * result.ttft, throughput=result.throughput / 2).met(result))
    assert not bool(gz.SLO(ttft=2 * result.ttft, throughput=result.throughput * 2).met(result))


def test_a_point_that_does_not_run_meets_nothing():
    result = gz.estimate("llama-3.1-405b", "H100-SXM")
    assert not bool(result.feasible)
    assert not bool(gz.SLO().met(result))


@pytest.mark.parametrize("bad", ["0 ms", "-1 s", "fast", float("nan"), "3 GB"])
def test_a_limit_that_no_service_could_have_is_refused(bad):
    with pytest.raises(ValueError, match=r"SLO\.ttft"):
        gz.SLO(ttft=bad)
