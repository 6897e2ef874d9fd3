"""Assumptions: which physics the model uses. A switch is read where its description says."""

import dataclasses
from typing import ClassVar, Literal


@dataclasses.dataclass(frozen=True)
class Assumptions:
    """Modelling choices. They decide the structure of the computation, so a change compiles anew.

    `default` is serving as done today; `genz` repeats the published analyser (arXiv 2406.01698) figure by figure.

    Attributes:
        causal: a query sees itself and what is before it, in its window; else all of the context, twice the work
            (work/layers/context.py, work/step.py).
        last_token_head: the language model head sees the tokens that are sampled from; else all
            (work/layers/embedding.py).
        gather_embedding: the input embedding reads the rows it needs; else it is a GEMM (work/layers/embedding.py).
        vector_operators: norms, activations, residuals and rotations take memory time (work/layers/vector.py).
        kv_cache_writes: new keys and values are written to the cache as well as read (work/layers/attention.py).
        decode_activations_on_chip: activations of decode steps stay on chip (work/step.py).
        on_chip_traffic: on-chip tensors take time at the on-chip bandwidth; else none (machine/roofline.py).
        fused_attention: scores, softmax and values of all the context of a sequence are one kernel with its scores on
            chip; else scores and values of each stretch of context are operators of their own (work/layers/kernel.py).
        latent_form: form of latent attention: `by stage` is naive for prompts and absorbed for decode; or `naive` or
            `absorbed` for both (work/layers/latent_attention.py).
        experts: routed experts whose weights a pass reads. `expected`: E(1 − (1 − K/E)^tokens) of E, for uniform
            routing. `routed`: min(tokens·K, E). `published`: all in prefill, ⌈K/ep⌉ per device in decode whatever the
            batch (work/layers/ffn.py).
        own_tokens: a rank routes and dispatches its own 1/ep of the tokens, and the results are gathered over ep
            (DeepSpeed-MoE, arXiv 2201.05596); else every rank sends all tokens (work/layers/ffn.py).
        sharded_router: the router is split over tensor parallel ranks and all-reduced; else each has it whole
            (work/layers/ffn.py).
        fused_scan: the selective scan is one kernel with its intermediates on chip and split over tensor parallel
            ranks; else seven einsums of the whole state (work/layers/ssm.py).
        decode_position: what the decode step stands for: the exact `mean` over all generated positions, or the `last`
            (work/steps.py).
        beams_share_queries: all beams' queries of the shared prompt count as one (work/steps.py).
        cache_of: what the KV cache must hold: the `batch` at full length, or one `micro-batch` at the evaluated
            position (work/footprint.py).
        cache_block: tokens of a block of the paged KV cache (arXiv 2309.06180), to which the cache of a sequence is
            rounded up; 1 for none (work/footprint.py).
        prefill: `bounded` by the engine's tokens per step, in several passes; or `whole`, all prompts in one pass
            (work/step.py).
        memory_of: what a device must hold. `engine`: weights, cache, peak of activations and buffers of collectives,
            within what the runtime's reserve leaves. `published`: weights and cache, within the capacity
            (work/footprint.py, machine/capacity.py).
        collectives: latency of collectives by the `topology` of each level; or `rings` everywhere (machine/network.py).
        pipeline: `scheduled` counts the filling of the pipeline; `published` takes batch/latency
            (work/pipeline.py, serving/pipeline.py).
        sparse_attention: where a model has an indexer, a query sees the tokens that it selects (DSA, arXiv 2512.02556),
            and the indexer's own work counts; else all of the context (work/layers/attention.py).
        even_sharding: heads and channels must divide evenly over the ranks, as engines demand; else a rank may have a
            fraction more than another (work/sharding.py).
        first_token_from_prefill: prefill gives the first output token, so that decode makes the others; else decode
            makes all (work/steps.py, serving/request.py).
        bonus_token: speculative verification looks at one position more than there are draft tokens, so that a step
            gives up to n + 1 tokens; else at n, for at most n tokens (work/steps.py, serving/speculative.py).
        energy_of: energy of `all devices` for the whole batch, or of `one device` for one micro-batch
            (serving/stage.py).
        infeasible: times, rates and energies of points that do not run are `nan`, or `finite`: those of a machine on
            which they did, with `memory_excess` beside them, for optimisers and samplers (serving/stage.py).
        measured_kernels: operators take the times of the platform's measured kernels, where it has some; else those of
            the roofline (serving/stages.py).
        smooth: 0 for the exact maximum of the roofline; τ > 0 for a p-norm with p = 1/τ (machine/roofline.py).
    """

    default: ClassVar["Assumptions"]
    genz: ClassVar["Assumptions"]

    causal: bool = True
    last_token_head: bool = True
    gather_embedding: bool = True
    vector_operators: bool = True
    kv_cache_writes: bool = True
    decode_activations_on_chip: bool = False
    on_chip_traffic: bool = False
    fused_attention: bool = True
    latent_form: Literal["by stage", "naive", "absorbed"] = "by stage"
    experts: Literal["expected", "routed", "published"] = "expected"
    own_tokens: bool = True
    sharded_router: bool = False
    fused_scan: bool = True
    decode_position: Literal["mean", "last"] = "mean"
    beams_share_queries: bool = False
    cache_of: Literal["batch", "micro-batch"] = "batch"
    cache_block: int = 16
    prefill: Literal["bounded", "whole"] = "bounded"
    memory_of: Literal["engine", "published"] = "engine"
    collectives: Literal["topology", "rings"] = "topology"
    pipeline: Literal["scheduled", "published"] = "scheduled"
    sparse_attention: bool = True
    even_sharding: bool = True
    first_token_from_prefill: bool = True
    bonus_token: bool = True
    energy_of: Literal["all devices", "one device"] = "all devices"
    infeasible: Literal["nan", "finite"] = "nan"
    measured_kernels: bool = True
    smooth: float = 0.0

    def __post_init__(self):
        choices = {
            "latent_form": ("by stage", "naive", "absorbed"),
            "experts": ("expected", "routed", "published"),
            "decode_position": ("mean", "last"),
            "cache_of": ("batch", "micro-batch"),
            "prefill": ("bounded", "whole"),
            "memory_of": ("engine", "published"),
            "collectives": ("topology", "rings"),
            "pipeline": ("scheduled", "published"),
            "energy_of": ("all devices", "one device"),
            "infeasible": ("nan", "finite"),
        }
        for field in dataclasses.fields(self):
            if isinstance(field.default, bool) and not isinstance(getattr(self, field.name), bool):
                raise ValueError(f"Assumptions.{field.name} = {getattr(self, field.name)!r}: must be True or False")
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"Assumptions.{name} = {getattr(self, name)!r}: must be one of {', '.join(allowed)}")
        if isinstance(self.cache_block, bool) or self.cache_block != int(self.cache_block) or self.cache_block < 1:
            raise ValueError(f"Assumptions.cache_block = {self.cache_block}: must be a whole number of 1 or more")
        if not 0 <= self.smooth <= 0.5:
            raise ValueError(f"Assumptions.smooth = {self.smooth}: must be from 0 (exact) to 0.5")

    def replace(self, **changes: object) -> "Assumptions":
        """Return a copy with some switches changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


default = Assumptions()
genz = Assumptions(
    causal=False,
    last_token_head=False,
    gather_embedding=False,
    vector_operators=False,
    kv_cache_writes=False,
    decode_activations_on_chip=True,
    on_chip_traffic=True,
    fused_attention=False,
    experts="published",
    own_tokens=False,
    sharded_router=True,
    fused_scan=False,
    decode_position="last",
    beams_share_queries=True,
    cache_of="micro-batch",
    cache_block=1,
    prefill="whole",
    memory_of="published",
    collectives="rings",
    pipeline="published",
    sparse_attention=False,
    even_sharding=False,
    first_token_from_prefill=False,
    bonus_token=False,
    energy_of="one device",
    measured_kernels=False,
)
Assumptions.default, Assumptions.genz = default, genz
PRESETS = {"default": default, "genz": genz}


def preset(name: "str | Assumptions") -> Assumptions:
    """Return the assumptions of that name (`default` or `genz`), or the assumptions given.

    Raises:
        ValueError: no such preset.
    """
    if isinstance(name, Assumptions):
        return name
    if name not in PRESETS:
        raise ValueError(f"assumptions = {name!r}: must be one of {', '.join(PRESETS)} or a gz.Assumptions")
    return PRESETS[name]
