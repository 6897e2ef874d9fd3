"""Count each family's default config beside PyTorch, into docs/families.md: python benchmarks/families.py

Needs the packages of the dependency group `exact`.
"""

import json
import tempfile
import warnings
from pathlib import Path

import torch  # pyright: ignore[reportMissingImports]
import transformers  # pyright: ignore[reportMissingImports]

import genz_jax as gz
from genz_jax.catalog.readers import READERS

HEAD = """# Families that `gz.Model.from_hugging_face` reads

The default config of each `model_type` in transformers {version}, counted by `gz.parameter_count` and by PyTorch on the
meta device. Made by `python benchmarks/families.py`; `tests/test_exact_parameters.py` holds more configs of each.
The text part of vision-language configs is read; modules for multi-token prediction are counted apart, as
`ParameterCount.mtp`, and are in no column here, nor in PyTorch's count. Encoders have no head, and the pooler that
their class has. LongCat's count leaves out the weights that transformers allocates for experts that do nothing.

| `model_type` | parameters | PyTorch | active | attention | ssm | ffn | experts | embedding + head | norms |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|
"""


def count(kind: str) -> tuple[gz.results.ParameterCount, int]:
    """Our count of a family's default config, and PyTorch's."""
    config = transformers.AutoConfig.for_model(kind)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        file.write_text(json.dumps({**config.to_dict(), "model_type": kind}, default=str))
        read = gz.Model.from_hugging_face(file)
    mine = gz.parameter_count(read)
    made = transformers.AutoModelForCausalLM if read.lm_head is None else transformers.AutoModel
    with torch.device("meta"):
        model = made.from_config(config)
    return mine, sum(parameter.numel() for parameter in model.parameters())


def why(error: Exception) -> str:
    """Why a family has no row, in a line."""
    text = str(error).splitlines()[0]
    if "Unrecognized" in text:
        return "transformers has no such causal language model"
    *_, ours = text.rpartition("config.json: ")
    return f"{type(error).__name__}: {ours}"


def main() -> None:
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    lines, left = [], {}
    for kind in sorted(READERS):
        try:
            mine, theirs = count(kind)
        except Exception as error:  # what transformers cannot build is listed with its reason
            left[kind] = why(error)
            continue
        parts = (mine.active, mine.attention, mine.ssm, mine.ffn, mine.experts, mine.embedding + mine.head, mine.norms)
        same = "equal" if float(mine.total) == theirs else f"{theirs:,}"
        cells = [f"{float(mine.total):,.0f}", same, *(f"{float(part):,.0f}" for part in parts)]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    text = HEAD.format(version=transformers.__version__) + "\n".join(lines) + "\n"
    if left:
        text += "\nWithout such a row:\n\n" + "\n".join(f"- `{kind}`: {reason}" for kind, reason in left.items()) + "\n"
    Path(__file__).parent.parent.joinpath("docs", "families.md").write_text(text)


if __name__ == "__main__":
    main()
