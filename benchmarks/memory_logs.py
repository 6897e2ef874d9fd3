"""KV tokens and activation peaks that engines log, beside those predicted, into docs/memory.md.

python benchmarks/memory_logs.py
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

import genz_jax as gz

DOCS = Path(__file__).parent.parent / "docs" / "memory.md"
GIB = 2**30
VLLM = "https://github.com/vllm-project/vllm/"


@dataclasses.dataclass(frozen=True)
class Log:
    """What an engine logged when it set its memory aside.

    Attributes:
        model: name in the catalogue.
        devices: platform, and how many by tensor parallelism.
        precision: number formats of the checkpoint.
        total: memory that the driver reports to the process, in GiB.
        share: share of it that the engine may use (`gpu_memory_utilization`).
        tokens_per_step: tokens of the pass that it profiled (`max_num_batched_tokens`).
        max_sequences: sequences whose logits it sampled in that pass.
        kv_tokens: tokens that its cache holds.
        peak: activation peak in GiB, where logged.
        source: engine and address.
        note: why the row counts for nothing, where it does not.
    """

    model: str
    devices: tuple[str, int]
    precision: str
    total: float
    share: float
    tokens_per_step: int
    max_sequences: int
    kv_tokens: float
    peak: float | None
    source: str
    note: str = ""

    def predicted(self) -> Any:
        """The memory stage for one sequence as long as the pass."""
        name, tp = self.devices
        chip = gz.platform(name).replace(mem_capacity=self.total * GIB, memory_reserve=1.0 - self.share)
        return gz.estimate(
            self.model,
            chip,
            gz.Workload(1, self.tokens_per_step, 1),
            gz.Parallelism(tp=tp),
            self.precision,
            engine=gz.Engine(self.tokens_per_step, max_sequences=self.max_sequences),
            stage="memory",
        )

    def predicted_tokens(self) -> float:
        """Tokens of cache in what weights, activations and buffers leave of the share."""
        found = self.predicted()
        return float(found.free + found.kv_cache) / float(found.kv_cache_per_token)


LOGS = (
    Log("llama-3-8b", ("H100-SXM", 1), "bf16", 79.22, 0.9, 8192, 256, 53.29 * GIB / 131_072, 1.26,
        f"vLLM [#10511]({VLLM}pull/10511)"),
    Log("llama-3-8b", ("H100-SXM", 2), "bf16", 79.22, 0.9, 8192, 256, 58.97 * GIB / 65_536, 1.26,
        f"vLLM [#10511]({VLLM}pull/10511)",
        "its memory beside PyTorch's is 3.58 GiB on two devices and 1.79 on one, so that it counts both processes"),
    Log("llama-3.1-8b", ("RTX-3090", 1), "bf16", 23.58, 0.9, 20_000, 256, 1952 * 16, 17.06 - 14.99,
        f"vLLM [#10517]({VLLM}issues/10517)"),
    Log("llama-3.1-8b", ("RTX-3090", 1), "bf16", 23.58, 0.9, 29_000, 256, 1478 * 16, 17.98 - 14.99,
        f"vLLM [#10517]({VLLM}issues/10517)"),
    Log("qwen2.5-14b", ("RTX-4090", 2), "bf16", 23.55, 0.98, 2048, 1, 81_536, 0.19,
        f"vLLM [#13061]({VLLM}issues/13061)",
        "the fuller of two workers decides, and the other is logged: 8.69 GiB, which are 94,917 tokens"),
    Log("qwen2.5-32b", ("L40S", 2), "bf16", 44.42, 0.9, 10_000, 256, 3947 * 16, 1.26,
        f"vLLM [#15815]({VLLM}issues/15815)"),
    Log("llama-3.3-70b", ("H200", 1), "fp8-fp8-bf16/embedding=bf16", 139.81, 0.9, 8192, 1024, 1.33 * 131_072, 4.84,
        "vLLM, 1.33 requests of 131,072 tokens"),
    Log("llama-3.1-70b", ("H100-SXM", 1), "int8-int8-bf16/embedding=bf16", 79.22, 0.98, 2048, 1024, 1381 * 16, None,
        f"vLLM [#12569]({VLLM}pull/12569)",
        "how many sequences were sampled is not in the log; 256 give 28,665 tokens"),
    Log("qwen3-235b-a22b", ("H100-SXM", 4), "fp8-fp8-bf16/embedding=bf16", 79.22, 0.93, 8192, 256, 367_404, None,
        f"SGLang [#21348]({VLLM}issues/21348)",
        "SGLang keeps activations outside of its share; here they are in it"),
    Log("qwen3-235b-a22b", ("H100-SXM", 4), "fp8-fp8-bf16/embedding=bf16", 79.22, 0.9, 8192, 1024, 178_880, None,
        f"vLLM [#21348]({VLLM}issues/21348)",
        "8.1 GiB of cache; workspaces of its experts' kernels are not in the prediction"),
)  # fmt: skip


def table() -> str:
    """All rows in Markdown."""
    lines = [
        "| log | model | devices | total · share | tokens · sequences of the pass | peak GiB: logged | predicted "
        "| KV tokens: logged | predicted | difference |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    notes = []
    for log in LOGS:
        mark = ""
        if log.note:
            notes.append(log.note)
            mark = f" ({len(notes)})"
        tokens, name = log.predicted_tokens(), f"{log.devices[1]} × {log.devices[0]}"
        logged = "–" if log.peak is None else f"{log.peak:.2f}"
        peak = float(log.predicted().activations) / GIB
        lines.append(
            f"| {log.source}{mark} | {log.model}, {log.precision} | {name} | {log.total:g} GiB · {log.share:g} "
            f"| {log.tokens_per_step:,} · {log.max_sequences:,} | {logged} | {peak:.2f} "
            f"| {log.kv_tokens:,.0f} | {tokens:,.0f} | {tokens / log.kv_tokens - 1:+.1%} |"
        )
    return "\n".join([*lines, "", *(f"{i}. {note}." for i, note in enumerate(notes, 1))])


def main() -> None:
    text = DOCS.read_text(encoding="utf-8")
    marks = "<!-- logs -->\n", "\n<!-- end of logs -->"
    pattern = re.compile(f"(?<={re.escape(marks[0])}).*(?={re.escape(marks[1])})", re.DOTALL)
    DOCS.write_text(pattern.sub(lambda _: table(), text), encoding="utf-8")


if __name__ == "__main__":
    main()
