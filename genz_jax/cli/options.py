"""Options that several commands have, and completion of names; `case_options` says which of them describe a case."""

from typing import Annotated

import typer


def _completions(names: list[str], incomplete: str) -> list[str]:
    """Names that continue the last one of a comma list."""
    *before, last = incomplete.split(",")
    return [",".join([*before, name]) for name in names if name.lower().startswith(last.lower())]


def _catalogued(what: str, incomplete: str) -> list[str]:
    """Names of the catalogue that continue a text, or aliases where no name does."""
    from genz_jax import catalog

    names = {"model": catalog.models, "platform": catalog.platforms, "workload": catalog.workloads}[what]()
    return _completions(names, incomplete) or _completions(catalog.spellings(what), incomplete)


def _models(incomplete: str) -> list[str]:
    return _catalogued("model", incomplete)


def _platforms(incomplete: str) -> list[str]:
    return _catalogued("platform", incomplete)


def _workloads(incomplete: str) -> list[str]:
    return _catalogued("workload", incomplete)


def _formats(incomplete: str) -> list[str]:
    from genz_jax.base import formats

    return _completions([*formats.FORMATS, *formats.BLOCK_FORMATS], incomplete)


_STAGES = ["request", "prefill", "decode", "encode", "chunked", "memory", "speculative_prefill", "speculative_decode"]


def _stages(incomplete: str) -> list[str]:
    return _completions(_STAGES, incomplete)


def _assumptions(incomplete: str) -> list[str]:
    return _completions(["default", "genz"], incomplete)


_MODEL_HELP = "Model, or a Hugging Face config.json; all names: genz-jax models."
_PLATFORM_HELP = "Platform, or a platform file of genz-jax calibrate; all names: genz-jax platforms."
_WORKLOAD_HELP = "Workload; all names: genz-jax workloads. Other options override its numbers."
_PRECISION_HELP = (
    "Number format, or weights-activations-cache such as int4-bf16-fp8, and kinds of layers and other tensors by name, "
    "such as fp8/embedding=bf16/ffn=nvfp4-nvfp4 [default: that of the model's checkpoint, else bf16]."
)
_MANY = " Repeat it or separate with commas for several."

OneModel = Annotated[str, typer.Option("--model", "-m", metavar="NAME", help=_MODEL_HELP, autocompletion=_models)]
OnePlatform = Annotated[
    str, typer.Option("--platform", "-p", metavar="NAME", help=_PLATFORM_HELP, autocompletion=_platforms)
]
OneWorkload = Annotated[
    str | None, typer.Option("--workload", "-w", metavar="NAME", help=_WORKLOAD_HELP, autocompletion=_workloads)
]
OnePrecision = Annotated[
    str | None, typer.Option("--precision", metavar="FORMAT", help=_PRECISION_HELP, autocompletion=_formats)
]
Kernels = Annotated[
    str | None,
    typer.Option(
        "--kernels",
        metavar="NAME",
        help="Whose measured kernels the platform runs: a software stack such as pytorch, a platform file, or ideal "
        "ones at the roofline [default: ideal, of a platform file its own].",
    ),
]
Models = Annotated[
    list[str], typer.Option("--model", "-m", metavar="NAME", help=_MODEL_HELP + _MANY, autocompletion=_models)
]
Platforms = Annotated[
    list[str],
    typer.Option("--platform", "-p", metavar="NAME", help=_PLATFORM_HELP + _MANY, autocompletion=_platforms),
]
Workloads = Annotated[
    list[str] | None,
    typer.Option("--workload", "-w", metavar="NAME", help=_WORKLOAD_HELP + _MANY, autocompletion=_workloads),
]
Precisions = Annotated[
    list[str] | None,
    typer.Option("--precision", metavar="FORMAT", help=_PRECISION_HELP + _MANY, autocompletion=_formats),
]
Batch = Annotated[str | None, typer.Option(metavar="N", help="Requests at once [default: 1].")]
Beams = Annotated[str | None, typer.Option(metavar="N", help="Beams of a request [default: 1].")]
Input = Annotated[
    str | None,
    typer.Option(
        "--input", metavar="N", help="Prompt tokens of a request, such as 2048, 128k (128000) or 128Ki [default: 1024]."
    ),
]
Output = Annotated[
    str | None, typer.Option("--output", metavar="N", help="Generated tokens of a request [default: 128].")
]
TensorParallel = Annotated[str | None, typer.Option("--tp", metavar="N", help="Tensor parallel size [default: 1].")]
ExpertParallel = Annotated[str | None, typer.Option("--ep", metavar="N", help="Expert parallel size [default: 1].")]
PipelineParallel = Annotated[str | None, typer.Option("--pp", metavar="N", help="Pipeline stages [default: 1].")]
DataParallel = Annotated[str | None, typer.Option("--dp", metavar="N", help="Data parallel replicas [default: 1].")]
ContextParallel = Annotated[str | None, typer.Option("--cp", metavar="N", help="Context parallel size [default: 1].")]
MicroBatches = Annotated[
    str | None, typer.Option(metavar="N", help="Micro-batches of the pipeline [default: as many as stages].")
]
TokensPerStep = Annotated[
    str | None,
    typer.Option(
        "--max-num-batched-tokens",
        metavar="N",
        help="Tokens of a forward pass at most; longer prefills take several passes [default: 8192].",
    ),
]
MaxSequences = Annotated[
    str | None,
    typer.Option(
        "--max-num-seqs",
        metavar="N",
        help="Sequences whose logits an engine sets memory aside for [default: those of the batch, at most 256].",
    ),
]
Stage = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        autocompletion=_stages,
        help=f"One of {', '.join(_STAGES)} [default: chunked with --prefill or --decode, speculative_decode with "
        "--draft, else request].",
    ),
]
AssumptionsName = Annotated[
    str,
    typer.Option(
        "--assumptions",
        metavar="NAME",
        autocompletion=_assumptions,
        help="default: serving as done today; genz: the published analyser (arXiv 2406.01698), figure by figure.",
        show_default=True,
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help='Change any number of a spec, such as mem_bw="4 TB/s" or attention.kv_heads=4. May be repeated.',
    ),
]
PrefillChunks = Annotated[
    list[str] | None,
    typer.Option(
        "--prefill",
        metavar="PAST:NEW",
        help="Part of a prompt that a chunked iteration works on: tokens before it, tokens of it. May be repeated.",
    ),
]
DecodeChunks = Annotated[
    list[str] | None,
    typer.Option(
        "--decode",
        metavar="CHUNK",
        help="Requests that decode in a chunked iteration: KV length, N:KV for N requests, or "
        "PROMPTS:SEQUENCES:CONTEXT:GENERATED for beams (SEQUENCES in all). May be repeated.",
    ),
]
Draft = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="Draft model of speculative decoding, or mtp for the model's own multi-token prediction.",
        autocompletion=_models,
    ),
]
DraftTokens = Annotated[str | None, typer.Option(metavar="N", help="Draft tokens per step [default: 4].")]
Acceptance = Annotated[
    str | None, typer.Option(metavar="SHARE", help="Probability that a draft token is accepted [default: 0.8].")
]
Breakdown = Annotated[bool, typer.Option("--breakdown", help="Latency by component too.")]
Operators = Annotated[bool, typer.Option("--operators", help="Figures of every operator too.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, numbers in base units, and nothing else.")]
Pattern = Annotated[str, typer.Argument(metavar="PATTERN", help="Part of a name or alias, or a pattern with * and ?.")]
Axes = Annotated[
    list[str] | None, typer.Option("--axis", metavar="NAME=VALUES", help="Sweep a number; see below. May be repeated.")
]
AxesOfSweep = Annotated[
    list[str] | None,
    typer.Option("--axis", metavar="NAME=VALUES", help="Sweep a number, as genz-jax sweep does. May be repeated."),
]
Limits = Annotated[
    list[str] | None,
    typer.Option(
        "--slo",
        metavar="NAME=LIMIT",
        help="A limit: ttft, tpot, e2e (at most), throughput, interactivity (at least), such as tpot=20ms. "
        "May be repeated.",
    ),
]
Node = Annotated[str, typer.Option("--node", metavar="NAME", help="Process node: 7nm, 5nm or 3nm.", show_default=True)]
Memory = Annotated[
    str, typer.Option("--memory", metavar="NAME", help="Memory: hbm2e, hbm3, hbm3e or hbm4.", show_default=True)
]
Constants = Annotated[
    list[str] | None,
    typer.Option(
        "--constant",
        metavar="NAME=VALUE",
        help="Change a constant of the cost model, such as gross_margin=0. May be repeated.",
    ),
]
