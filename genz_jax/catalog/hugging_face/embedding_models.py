"""Embedding models and encoders in configs: no language model head, rows of labels in its place, sight both ways."""

import re
from collections.abc import Mapping
from pathlib import Path

from genz_jax.catalog.hugging_face.config import Config
from genz_jax.specs import Model

_LABELLED = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
"""Endings of classes of transformers with a vector for each label in the place of a language model head."""

_NAMED = re.compile(r"embed(?!ded)", re.IGNORECASE)


def file_name(file: Path) -> str:
    """Name of the model whose config it is: of its folder, of its repository in the hub's cache, or of the file."""
    folder = file.parent
    if file.name != "config.json" or not folder.name:
        return file.stem.removesuffix("_config")
    if folder.parent.name == "snapshots":
        return folder.parent.parent.name.rpartition("--")[2]
    return folder.name


def sees_both_ways(c: Config) -> bool:
    """Whether every token sees those after it too, as configs of embedding models say of the class of a decoder."""
    return c.get("use_bidirectional_attention") in (True, "all") or c.get("is_causal") is False


def as_embedding_model(model: Model, c: Config, architectures: list[str], file: Path) -> Model:
    """The model without a language model head, where its class has none or its files are an embedding model's.

    A class of transformers whose name ends in Model is bare. Checkpoints of embedding models that keep the name of a
    causal class have "embed" in theirs, or `modules.json` of Sentence Transformers beside the config.

    Args:
        model: the model as its reader read it.
        c: its config.
        architectures: the classes that the whole config names.
        file: the config's file.

    Raises:
        ValueError: a decoder whose tokens are to see both ways and that has windows or states, or generates.
    """
    labelled = next((end for end in _LABELLED for name in architectures if name.endswith(end)), "")
    bare = any(name.endswith("Model") and not name.endswith("LMHeadModel") for name in architectures)
    generates = any(name.endswith("ForConditionalGeneration") for name in architectures)
    c.refuse(sees_both_ways(c) and generates, "use_bidirectional_attention: a decoder whose prompts look ahead")
    named = _NAMED.search(file_name(file)) or (file.parent / "modules.json").is_file()
    if sees_both_ways(c) and not model.bidirectional:
        kinds = ("ssm", "ssd", "delta_net", "linear_attention", "short_convolution", "sparse_attention")
        states = [getattr(model, kind) for kind in kinds]
        c.refuse(model.local_attention is not None, "windows of a decoder that sees both ways")
        c.refuse(any(part is not None for part in states), "states of a decoder that sees both ways")
        model = model.replace(bidirectional=1.0, lm_head=0.0)
    if not (bare or labelled or named or model.bidirectional):
        return model
    more = _label_parameters(model, c, labelled) if labelled else 0.0
    return model.replace(lm_head=0.0, head_biases=0.0, other_parameters=model.other_parameters + more)


def _label_parameters(model: Model, c: Config, labelled: str) -> float:
    """Parameters that a class with labels has beyond the bare one: a row for each label, and what comes before it."""
    hidden, kind = float(model.hidden_size), c.get("model_type")
    labels = c.get("id2label")
    rows = len(labels) if isinstance(labels, Mapping) else c.size("num_labels", default=2)
    of_sequence = labelled == "ForSequenceClassification"
    encoder = kind in ("bert", "roberta", "xlm-roberta", "modernbert")
    # A decoder scores sequences without a bias.
    more = rows * (hidden + (encoder or not of_sequence))
    if kind == "modernbert":
        return more + hidden * (hidden + c.flag("classifier_bias") + 1)
    # RoBERTa scores a sequence through a layer of the pooler's size; single tokens have no pooler.
    return more - (hidden * (hidden + 1) if encoder and not of_sequence else 0.0)
