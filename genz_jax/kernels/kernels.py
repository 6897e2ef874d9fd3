"""Kernels of a software stack on a device: a form for each kind of operator, and what holds for all of them."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import equinox as eqx

from genz_jax.base import units
from genz_jax.base.fields import NOT_NEGATIVE, POSITIVE, Number, Spec, number
from genz_jax.base.label import Label, label
from genz_jax.kernels.choice import alike
from genz_jax.kernels.form import Form

KERNELS = {
    "gemm_bf16": "products with weights, 16-bit and wider",
    "gemm_fp8": "products with weights, 8-bit",
    "gemm_fp4": "products with weights, 4-bit",
    "experts_bf16": "products of experts, 16-bit and wider",
    "experts_fp8": "products of experts, 8-bit",
    "experts_fp4": "products of experts, 4-bit",
    "prefill_attention": "attention of prompts",
    "decode_attention": "attention of decoding sequences",
    "latent_decode": "absorbed latent attention of decoding sequences",
    "norm": "norms with the residual addition",
    "activation": "activations of feed-forward layers",
    "rotation": "rotation of queries and keys, and writing of the cache",
    "routing": "routing of MoE layers",
    "scan": "scans of state space layers",
    "convolution": "convolutions of state space layers",
    "vector": "other passes over tensors",
    "embedding": "look-up of the input's vectors, with what else a forward pass does once",
}
"""Kernels that a form may stand for; what has none is ideal."""


def _form(name: str) -> Any:
    return eqx.field(default=None, metadata={"long_name": KERNELS[name]})


class Kernels(Spec):
    """Forms of the kernels that a platform runs; a kernel without a form is ideal, at the roofline."""

    gemm_bf16: Form | None = _form("gemm_bf16")
    gemm_fp8: Form | None = _form("gemm_fp8")
    gemm_fp4: Form | None = _form("gemm_fp4")
    experts_bf16: Form | None = _form("experts_bf16")
    experts_fp8: Form | None = _form("experts_fp8")
    experts_fp4: Form | None = _form("experts_fp4")
    prefill_attention: Form | None = _form("prefill_attention")
    decode_attention: Form | None = _form("decode_attention")
    latent_decode: Form | None = _form("latent_decode")
    norm: Form | None = _form("norm")
    activation: Form | None = _form("activation")
    rotation: Form | None = _form("rotation")
    routing: Form | None = _form("routing")
    scan: Form | None = _form("scan")
    convolution: Form | None = _form("convolution")
    vector: Form | None = _form("vector")
    embedding: Form | None = _form("embedding")
    processors: Number = number(units.ONE, "streaming multiprocessors or compute units", 132.0, POSITIVE)
    cache_capacity: Number = number(units.BYTE, "last cache", "50 MB", NOT_NEGATIVE)
    cache_bandwidth: Number = number(units.BYTE_RATE, "bandwidth of the last cache", "6.96 TB/s", role="rate")
    derating: Number = number(
        units.ONE, "share by which a long run of compute-bound kernels is slowed by the power limit", 0.0, NOT_NEGATIVE
    )
    derating_time: Number = number(
        units.SECOND, "run after which half of that shows", "20 ms", NOT_NEGATIVE, role="latency"
    )
    label: Label = label()

    @classmethod
    def alike(cls, specs: Sequence["Kernels"]) -> Sequence["Kernels"]:
        """Kernels whose forms are of one structure, so that they may be stacked."""
        changed: list[dict[str, Any]] = [{} for _ in specs]
        for field in dataclasses.fields(cls):
            if field.name in KERNELS:
                forms = alike([getattr(spec, field.name) for spec in specs])
                for change, form in zip(changed, forms, strict=True):
                    change[field.name] = form
        return [spec.replace(**change) for spec, change in zip(specs, changed, strict=True)]
