"""What a device must hold in memory: weights, KV cache, activations, and buffers of collectives."""

import equinox as eqx
import jax.numpy as jnp

from genz_jax.base import arrays as xp
from genz_jax.base.fields import Number
from genz_jax.specs import Model, Workload
from genz_jax.work.operators.operator import Operator
from genz_jax.work.pipeline import Ends, ends_of, slowest, tied_copy
from genz_jax.work.step import Deployment, Step, ceil_div
from genz_jax.work.steps import decode_step, forward, prefill_step

Operators = tuple[Operator, ...]

HEAD = ("head", "head.all_gather")
"""Operators of the language model head."""

LOGIT_BYTES = 40.0
"""Bytes of a logit while it is sampled from: itself in 16 and 32 bits, sorted, its place, its probability, copies.
Fitted on the activation peaks that vLLM logs where sampling decides them (docs/memory.md): 41.2 for Llama-3-8B
and 39.2 for Qwen2.5-7B with 256 sequences, 39.6 for Llama-3.3-70B with 1,024."""

SAMPLED = 256.0
"""Sequences whose logits an engine sets aside at most, unless it is told another number: vLLM's default."""


class Footprint(eqx.Module):
    """Bytes on one device of the fullest stage of a pipeline; as published, the mean of its stages."""

    weights: Number
    idle_weights: Number
    kv_cache: Number
    activations: Number
    buffers: Number

    @property
    def total(self) -> Number:
        """All of it."""
        return self.weights + self.kv_cache + self.activations + self.buffers


def footprint(model: Model, workload: Workload, step: Step, deployment: Deployment, ops: Operators) -> Footprint:
    """What a device must hold for a pass.

    Where the whole batch counts (`Assumptions.cache_of`), the cache is that of all its requests at full length,
    whatever position the pass looks at; else that of the pass's one micro-batch. Activations and buffers count as
    `Assumptions.memory_of` says.

    Args:
        model: the model.
        workload: the requests.
        step: the pass; in a prefill the cache holds the prompts, else input + output tokens.
        deployment: how they are spread.
        ops: operators of the pass.
    """
    held = () if step.mode == "encode" else ops
    chunked = workload.prefill_chunks or workload.decode_chunks
    if deployment.assumptions.cache_of == "batch" and held and not chunked:
        held = cache_holders(model, workload, deployment, generates=step.mode != "prefill")
    working = activations(model, step, deployment, ops)
    stored = ends_of(ops, [op.stored * op.repeats for op in ops])
    copy = 0.0 if step.mode == "encode" else tied_copy(model, deployment)
    stored = Ends(stored.total + copy, stored.first, stored.last + copy)
    cached = ends_of(held, [op.cached * op.repeats for op in held])
    idle = ends_of(ops, [_idle(op) for op in ops])
    # Each by itself, so that weights do not depend on the batch: too much by less than a layer's cache.
    weights, unread, cache = (slowest(amount, model.layers, deployment) for amount in (stored, idle, cached))
    return Footprint(weights, unread, cache, *working)


def cache_holders(model: Model, workload: Workload, deployment: Deployment, generates: bool) -> Operators:
    """Operators whose cache is that of the whole batch at full length, each sequence in whole blocks.

    Args:
        model: the model.
        workload: the requests.
        deployment: how they are spread.
        generates: the cache grows to input + output tokens; else it holds the prompt.
    """
    whole = Deployment(
        deployment.parallelism.replace(micro_batches=1.0),
        deployment.precision,
        deployment.assumptions.replace(decode_position="last"),
    )
    block = float(deployment.assumptions.cache_block)
    prompt, output = workload.input_tokens, workload.output_tokens
    if generates:
        full = ceil_div(prompt + output, block) * block
        # Wherever the prompt ends, the tokens of a beam span at most so many blocks, its last one included.
        span = jnp.where(output > 0, (ceil_div(output - 1.0, block) + 1.0) * block, 0.0)
        own = jnp.minimum(span, full)
        rounded = eqx.tree_at(lambda w: (w.input_tokens, w.output_tokens), workload, (full - own, own))
        return forward(model, decode_step(rounded, whole), whole)
    rounded = eqx.tree_at(lambda w: w.input_tokens, workload, ceil_div(prompt, block) * block)
    return forward(model, prefill_step(rounded, whole), whole)


def activations(model: Model, step: Step, deployment: Deployment, ops: Operators) -> tuple[Number, Number]:
    """Peak of activations, and of the buffers of collectives, on one device.

    While an operator runs, its operands and its result are there, and beside them the residual stream with its sum and
    its norm: 3 · rows · D elements + maxₒ (inputₒ + outputₒ). Of a collective there is a buffer to send from and one to
    receive in: 2 · maxₒ messageₒ. Where only sampled tokens have logits, the head runs when the layers' tensors are
    gone, and counts by what sampling sets aside: `LOGIT_BYTES` · V for each sequence, as many as
    `Engine.max_sequences`, or those of the pass up to `SAMPLED`. The larger of the two counts.
    """
    if deployment.assumptions.memory_of == "published":
        return 0.0 * step.rows, 0.0 * step.rows
    peak: Number = 0.0 * step.rows
    message: Number = 0.0 * step.rows
    sampled = deployment.assumptions.last_token_head
    for op in ops:
        if sampled and op.name in HEAD:
            continue
        runs = (op.repeats > 0) & (op.input + op.output > 0)
        off_chip = sum(getattr(op, name) for name in ("input", "output") if name[0] not in op.on_chip)
        peak = jnp.maximum(peak, jnp.where(runs, off_chip, 0.0))
        message = jnp.maximum(message, jnp.where(op.repeats > 0, op.message, 0.0))
    stream = step.rows * model.hidden_size * deployment.precision.activations
    if not sampled:
        return stream + peak, 2.0 * message
    return jnp.maximum(3.0 * stream + peak, _logits(model, step, deployment)), 2.0 * message


def _logits(model: Model, step: Step, deployment: Deployment) -> Number:
    """Bytes that sampling sets aside."""
    if step.mode == "encode":
        return 0.0
    most = None if deployment.engine is None else deployment.engine.max_sequences
    sequences = jnp.minimum(step.sequences * step.sampled, SAMPLED) if most is None else most
    return sequences * model.vocab_size * LOGIT_BYTES


def _idle(op: Operator) -> Number:
    """Bytes of parameters of a linear layer that the pass does not read: (stored − read) · repeats."""
    if op.kind != "gemm":
        return 0.0
    return jnp.maximum(op.stored - jnp.where(op.flops > 0, op.weight, 0.0), 0.0) * op.repeats


def sum_over(ops: tuple[Operator, ...], field: str) -> Number:
    """Σ field · repeats."""
    amounts = ((getattr(op, field), op.repeats) for op in ops)
    return xp.total(each if isinstance(each, float) and each == 0.0 else each * repeats for each, repeats in amounts)
