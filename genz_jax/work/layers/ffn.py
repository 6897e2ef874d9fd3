"""Feed-forward layers: dense and mixture of experts."""

from typing import Any

from genz_jax.base import arrays as xp
from genz_jax.base.fields import Number
from genz_jax.specs import FFN, Layers, MoE
from genz_jax.work.layers.registry import layer
from genz_jax.work.layers.vector import pre_norm, with_parameters
from genz_jax.work.operators.collectives import all_gather, all_reduce, all_to_all
from genz_jax.work.operators.elementwise import activation, softmax
from genz_jax.work.operators.operator import Operator
from genz_jax.work.operators.products import gemm, grouped_gemm
from genz_jax.work.step import Deployment, Step, ceil_div, floor_div, shard


@layer(FFN, parameters="ffn", role="feed-forward", preference=1)
def ffn_layer(name: str, part: FFN, hidden: Number, step: Step, deployment: Deployment) -> list[Operator]:
    """Operators of one dense feed-forward layer on one device: up (and gate), activation, down, all-reduce over T.

    The inner size is split over T = tp·ep ranks; a mean of different sizes is divided as it is.
    """
    size = part.intermediate_size
    inner = xp.where(size == xp.floor(size), shard(size, deployment.ranks), size / deployment.ranks)
    on_chip = step.resident(deployment.assumptions) if step.mode == "decode" else ""
    return [
        *pre_norm(name, step, hidden, deployment, part.norms),
        *_mlp(name, "ffn", part.in_projections, inner, hidden, step.tokens, step, deployment, on_chip, part.biases),
        all_reduce(
            f"{name}.all_reduce",
            "ffn_all_reduce",
            elements=step.rows * hidden,
            ranks=deployment.ranks,
            precision=deployment.precision,
        ),
    ]


def _mlp(
    name: str,
    layers: Layers,
    in_projections: Number,
    inner: Number,
    hidden: Number,
    tokens: Number,
    step: Step,
    deployment: Deployment,
    on_chip: str,
    biases: Number = 0.0,
) -> list[Operator]:
    linear: dict[str, Any] = {"batch": step.sequences, "m": tokens, "precision": deployment.precision}
    linear |= {"on_chip": on_chip, "layers": layers}
    return [
        gemm(f"{name}.up_gate_proj", "ffn", n=inner * in_projections, k=hidden, **linear),
        *_activation(name, step.sequences * tokens * inner, in_projections, deployment),
        with_parameters(gemm(f"{name}.down_proj", "ffn", n=hidden, k=inner, **linear), deployment.precision, biases),
    ]


@layer(MoE, parameters="ffn", experts=True, role="feed-forward", preference=2)
def moe_layer(name: str, part: MoE, hidden: Number, step: Step, deployment: Deployment) -> list[Operator]:
    """Operators of one mixture-of-experts layer on one device.

    Router, dispatch all-to-all over ep, the experts of this rank (each split over tp), combine all-to-all, shared
    experts, all-reduce over tp. How many experts' weights are read follows `Assumptions.experts`.

    Attention leaves all S tokens on each of the tp·ep ranks. As in DeepSpeed-MoE (arXiv 2201.05596; its pull request
    5626: drop, all-to-all, experts, all-to-all, all-gather) a rank keeps 1/ep of them, at least one, for router, shared
    experts and all-to-alls of K·D·S/ep elements, and an all-gather over ep of S·D elements makes the tokens whole
    again. Without `Assumptions.own_tokens` each rank routes, computes and sends all S tokens.

    All wait for the rank whose experts get the most tokens, `Parallelism.expert_imbalance` times the mean and at most
    all of them: its experts compute, and the all-to-alls move, that many times more (arXiv 2412.19437, 3.4). The
    published forms of `Assumptions.experts` are even.
    """
    own: Number = 1.0
    if deployment.assumptions.own_tokens:
        own = xp.maximum(1.0 / deployment.parallelism.ep, 1.0 / xp.maximum(step.rows, 1.0))
    rows, tokens = step.rows * own, step.tokens * own
    precision, parallelism, assumptions = deployment.precision, deployment.parallelism, deployment.assumptions
    tp, ep = parallelism.tp, parallelism.ep
    decode_on_chip = step.resident(assumptions) if step.mode == "decode" else ""
    linear = {"batch": step.sequences, "m": tokens, "precision": precision}
    latent = part.latent
    width = hidden if latent is None else xp.where(latent.size > 0, latent.size, hidden)
    there = 1.0 if latent is None else xp.where(latent.size > 0, 1.0, 0.0)
    busiest = xp.where(parallelism.expert_imbalance < ep, parallelism.expert_imbalance, ep)
    routed = {"elements": rows * part.top_k * width * busiest, "ranks": ep, "precision": precision, "stride": tp}

    ops = pre_norm(name, step, hidden, deployment, part.norms)
    ops += _router(name, part, hidden, rows, linear, step, deployment)
    if latent is not None:
        # Down to the experts' width before the dispatch and up after the combine.
        ops += [gemm(f"{name}.latent_down_proj", "ffn", n=latent.size, k=hidden, **linear).times(there)]
    ops += [all_to_all(f"{name}.dispatch", "ffn_all_to_all", **routed)]
    inner = shard(part.intermediate_size, tp)
    if assumptions.experts == "expected":
        ops += _expected_experts(name, part, inner, width, busiest, step, deployment)
    else:
        ops += _whole_experts(name, part, inner, width, step, deployment, decode_on_chip)
    ops += [all_to_all(f"{name}.combine", "ffn_all_to_all", **routed)]
    if latent is not None:
        up = gemm(f"{name}.latent_up_proj", "ffn", n=hidden, k=latent.size, **linear)
        ops += [with_parameters(up, precision, norms=latent.norm * latent.size).times(there)]
    shared = part.shared_experts * ceil_div(part.shared_intermediate_size, tp)
    tokens = xp.where(shared > 0, tokens, 0.0)
    sizes = (part.in_projections, shared, hidden, tokens)
    ops += _mlp(f"{name}.shared", "shared_experts", *sizes, step, deployment, decode_on_chip)
    ops += [all_reduce(f"{name}.all_reduce", "ffn_all_reduce", elements=rows * hidden, ranks=tp, precision=precision)]
    if assumptions.own_tokens:
        ops += [
            all_gather(
                f"{name}.all_gather",
                "ffn_all_to_all",
                elements=step.rows * hidden,
                ranks=ep,
                precision=precision,
                stride=tp,
            )
        ]
    return ops


def _router(
    name: str,
    part: MoE,
    hidden: Number,
    rows: Number,
    linear: dict[str, Any],
    step: Step,
    deployment: Deployment,
) -> list[Operator]:
    """Scores of all experts and their softmax; with `Assumptions.sharded_router` an all-reduce of split products."""
    assumptions, precision, tp = deployment.assumptions, deployment.precision, deployment.parallelism.tp
    router_in = floor_div(hidden, tp) if assumptions.sharded_router else hidden
    router = gemm(f"{name}.router", "ffn", n=part.experts + part.shared_gate, k=router_in, **linear)
    ops = [with_parameters(router, precision, part.router_biases).counted_as("router")]
    if assumptions.sharded_router:
        # The published decode step reduces the hidden vector here, its other steps the router's logits.
        elements = step.rows * (hidden if step.mode == "decode" else part.experts)
        ops += [
            all_reduce(f"{name}.router_all_reduce", "ffn_all_reduce", elements=elements, ranks=tp, precision=precision)
        ]
    if assumptions.vector_operators:
        chosen = softmax(f"{name}.router_softmax", rows=rows, width=part.experts, precision=precision)
        sizes = {"rows": rows, "top_k": part.top_k, "hidden": hidden}
        ops += [chosen.replace(kernel="routing", sizes=chosen.sizes | sizes)]
    return ops


def expected_experts(experts: Number, top_k: Number, tokens: Number) -> Number:
    """Distinct experts that `tokens` tokens are expected to touch, routed uniformly: E·(1 − (1 − K/E)^tokens)."""
    miss = xp.minimum(top_k / experts, 1.0 - 1e-7)
    touched = experts * -xp.expm1(tokens * xp.log1p(-miss))
    return xp.where(top_k >= experts, experts, touched)


def _expected_experts(
    name: str, part: MoE, inner: Number, hidden: Number, busiest: Number, step: Step, deployment: Deployment
) -> list[Operator]:
    """Experts as a grouped GEMM over those that are expected to get a token, weights of all local experts stored."""
    precision, ep = deployment.precision, deployment.parallelism.ep
    touched = expected_experts(part.experts, part.top_k, step.rows)
    local, rows = touched / ep, busiest * step.rows * part.top_k / xp.where(touched > 0, touched, 1.0)
    stored = part.experts / ep * inner * hidden * precision.experts
    biases = part.experts / ep * part.biases * precision.experts
    grouped: dict[str, Any] = {"groups": local, "m": rows, "precision": precision, "layers": "experts"}
    up = inner * part.in_projections
    into = grouped_gemm(f"{name}.up_gate_proj", "ffn", n=up, k=hidden, stored=stored * part.in_projections, **grouped)
    out = grouped_gemm(f"{name}.down_proj", "ffn", n=hidden, k=inner, stored=stored + biases, **grouped)
    return [
        into.counted_as("experts"),
        *_activation(name, local * rows * inner, part.in_projections, deployment),
        out.counted_as("experts"),
    ]


def _whole_experts(
    name: str, part: MoE, inner: Number, hidden: Number, step: Step, deployment: Deployment, on_chip: str
) -> list[Operator]:
    """Experts as one wide GEMM of the published analyser; idle experts stand as GEMMs without tokens."""
    precision, ep = deployment.precision, deployment.parallelism.ep
    if step.mode == "decode":
        active = xp.maximum(ceil_div(part.top_k, ep), 1.0)
        local, rows = ceil_div(part.experts, ep), step.tokens
    elif deployment.assumptions.experts == "routed":
        touched = xp.minimum(part.top_k * step.tokens, part.experts)
        active = xp.maximum(ceil_div(touched, ep), 1.0)
        local, rows = ceil_div(part.experts, ep), floor_div(step.tokens * part.top_k, xp.maximum(touched, 1.0))
    else:
        active = floor_div(part.experts, ep)
        local, rows = active, floor_div(step.tokens * part.top_k, part.experts)
    idle = xp.maximum(local - active, 0.0)
    linear: dict[str, Any] = {"batch": step.sequences, "precision": precision, "on_chip": on_chip}
    linear["layers"] = "experts"
    up = inner * part.in_projections
    ops = [
        gemm(f"{name}.up_gate_proj", "ffn", m=rows, n=active * up, k=hidden, **linear),
        gemm(f"{name}.down_proj", "ffn", m=rows, n=hidden, k=active * inner, **linear),
        gemm(f"{name}.idle_up_gate_proj", "ffn", m=0.0, n=idle * up, k=hidden, **linear),
        gemm(f"{name}.idle_down_proj", "ffn", m=0.0, n=hidden, k=idle * inner, **linear),
    ]
    return ops


def _activation(name: str, elements: Number, inputs: Number, deployment: Deployment) -> list[Operator]:
    if not deployment.assumptions.vector_operators:
        return []
    return [activation(f"{name}.activation", elements=elements, inputs=inputs, precision=deployment.precision)]
