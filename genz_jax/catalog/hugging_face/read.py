"""Models from a Hugging Face `config.json`, on this machine or on the hub."""

import json
import os
import socket
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genz_jax.base.fields import near
from genz_jax.base.label import Label
from genz_jax.catalog.hugging_face import other_files
from genz_jax.catalog.hugging_face.config import Config, refusal, shown
from genz_jax.catalog.hugging_face.config_classes import ConfigClass, config_class
from genz_jax.catalog.hugging_face.context_length import of_config
from genz_jax.catalog.hugging_face.embedding_models import as_embedding_model, file_name
from genz_jax.catalog.hugging_face.model_classes import check_models
from genz_jax.catalog.readers import READERS
from genz_jax.specs import Model

LARGEST_FILE = 16 * 2**20
"""Bytes of the largest file that is read; configs have a few kilobytes."""

_MTP_KEYS = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers", "num_mtp_modules")
"""Keys of the number of modules for multi-token prediction."""

_BY_LAYER = ("gemma4_text", "step3p5", "step3p7")
"""Architectures whose readers know what their `per_layer_config` says."""

_FLAT = ("qwen2_vl", "qwen2_5_vl")
"""Wholes that were published with the keys of their text part beside those of the image's."""

_TEXT_KEYS = ("text_config", "llm_config", "language_config")


# ------------------------------------------------------------------------------------------------------ the files


def read_model(path_or_id: str | os.PathLike[str]) -> Model:
    """Read a model from a Hugging Face config.

    Args:
        path_or_id: a `config.json`, a folder with one, or a hub id such as "Qwen/Qwen3-8B" (with `huggingface_hub`
            installed, and the hub in reach or its cache filled).

    Returns:
        The model; of a vision-language config its text part. Modules for multi-token prediction are counted in
        `Model.mtp_layers`, apart from the layers.

    Raises:
        ValueError: no such file, no JSON object, an architecture that is not known, a size that is missing or
            impossible, or a feature that the parts of a `Model` do not express.
    """
    file = _config_file(path_or_id)
    values = other_files.as_config(file, str(path_or_id), _read_json(file))
    c = read_config(str(path_or_id), values)
    names = Config(str(path_or_id), values).names("architectures")
    kind = c.get("model_type")
    by_layer = c.get("per_layer_config") and kind not in _BY_LAYER
    c.refuse(by_layer, "per_layer_config: layers of different sizes")
    model = READERS[kind](c)
    model = as_embedding_model(model, c, names, file)
    modules = 0 if not c.flag("use_mtp", True) else c.size(*_MTP_KEYS, default=0, least=0)
    label = Label(file_name(file), max_context=of_config(c.values))
    return model.replace(mtp_layers=modules, label=label)


def read_config(where: str, values: Mapping[str, Any]) -> Config:
    """The part of a config that describes the language model, its keys checked, with its architecture as `model_type`.

    Args:
        where: the file, for messages.
        values: the JSON object.

    Raises:
        ValueError: an architecture that is not known, a value of the wrong type, or a model with code of its own.
    """
    outer, kind = Config(where, values), values.get("model_type")
    if kind is not None and not isinstance(kind, str):
        raise refusal(where, f"model_type = {shown(kind)}: must be a text")
    whole = config_class(kind) if kind is not None else None
    key = next((key for key in _TEXT_KEYS if values.get(key) is not None), None)
    inner = values
    if key is not None:
        part = outer.part(key)
        where, inner = part.where, _tied_as_whole(part, outer, whole)
        kind = _text_kind(part.values.get("model_type"), kind, whole)
    elif whole is not None and whole.text is not None:
        if kind not in READERS and kind not in _FLAT:
            raise refusal(where, f"no text_config; {kind!r} has its language model there")
        kind = whole.text  # published with the keys of its text part in the whole
    names = outer.names("architectures")
    if not isinstance(kind, str) or kind not in READERS:
        hint = (near(kind, READERS) if isinstance(kind, str) else "") or "; all that are known: docs/families.md"
        named = ", ".join(names) or "no architecture"
        raise refusal(where, f"the architecture {shown(kind)} ({shown(named)}) is not known{hint}")
    known = config_class(kind)
    if key is None or whole is not None:
        check_models(outer, names, kind, [part for part in (whole, known) if part is not None])
    return Config(where, {**inner, "model_type": kind}, known)


def _tied_as_whole(part: Config, whole: Config, known: ConfigClass | None) -> dict[str, Any]:
    """Keys of a text part, with the whole's word on whether head and embedding are one where that decides."""
    key = "tie_word_embeddings"
    given, own = whole.values.get(key), part.values.get(key)
    decides = known is not None and known.text is not None and not (known.tied_by_text and own is True)
    if given is None or (own is not None and not decides):
        return part.values
    return {**part.values, key: given}


def _text_kind(inner: Any, outer: Any, whole: ConfigClass | None) -> Any:
    """Architecture of the text part, where configs name it after the whole, or not at all."""
    if whole is not None and whole.text is not None and (inner is None or not whole.any_text):
        return whole.text
    if not isinstance(inner, str) or inner in READERS:
        return inner if inner is not None else outer
    return f"{inner}_text" if f"{inner}_text" in READERS else inner


def is_config(text: str) -> bool:
    """Whether a text names a config file or a folder on this machine."""
    return text.endswith(".json") or (bool(text.strip()) and os.path.exists(text))


class NotOnTheHub(ValueError):
    """A hub id of which no config can be had."""


def _config_file(path_or_id: str | os.PathLike[str]) -> Path:
    path = Path(path_or_id)
    try:
        if path.is_dir():
            path = path / "config.json"
        if path.is_file():
            return path
        loop = path.is_symlink()
    except OSError as error:
        raise refusal(path_or_id, f"cannot be read: {error.strerror or error}") from None
    if loop:
        raise refusal(path_or_id, "a link that leads to no file")
    text = str(path_or_id)
    if path.suffix == ".json" or path.exists() or text.count("/") != 1 or text.startswith((".", "/", "~")):
        raise refusal(path_or_id, "no such file; give a config.json, a folder with one, or a hub id owner/name")
    return _from_hub(text)


def _from_hub(name: str) -> Path:
    try:
        import huggingface_hub  # type: ignore[import-not-found]
    except ImportError:
        needs = "no such file, and as a hub id it needs the package huggingface_hub; or save its config.json"
        raise refusal(name, needs) from None
    reached = _hub_answers(huggingface_hub.constants.ENDPOINT)
    try:
        return Path(huggingface_hub.hf_hub_download(name, "config.json", local_files_only=not reached))
    except Exception as error:
        why = f"{type(error).__name__}: {error}" if reached else "it cannot be reached, and nothing is kept of that id"
        raise NotOnTheHub(str(refusal(name, f"no such file, and the hub gave none: {why}"))) from None


def _hub_answers(endpoint: str) -> bool:
    """Whether the hub can be reached, which its own client asks again and again for half a minute."""
    if urllib.request.getproxies():
        return True  # that the proxy has to find out
    address = urllib.parse.urlsplit(endpoint)
    try:
        with socket.create_connection((address.hostname, address.port or 443), timeout=3):
            return True
    except OSError:
        return False


def _read_json(file: Path) -> dict[str, Any]:
    """The JSON object of a file.

    Raises:
        ValueError: the file cannot be read, is too large, or is not one JSON object whose keys are all different.
    """

    def no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) != len(pairs):
            names = [name for name, _ in pairs]
            twin = next(name for name in values if names.count(name) > 1)
            raise refusal(file, f"the key {shown(twin)} is there twice; keep one")
        return values

    try:
        size = file.stat().st_size
        if size > LARGEST_FILE:
            raise refusal(file, f"{size:,} bytes; a config has at most {LARGEST_FILE:,}")
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise refusal(file, f"no JSON: {error}") from None
    try:
        values = json.loads(text, object_pairs_hook=no_twins)
    except (json.JSONDecodeError, RecursionError) as error:
        raise refusal(file, f"no JSON: {error}") from None
    except ValueError as error:
        if "integer string conversion" not in str(error):
            raise
        raise refusal(file, "no JSON of a config: a whole number of more than 4,300 digits") from None
    if not isinstance(values, dict):
        raise refusal(file, f"a JSON {type(values).__name__}, must be an object")
    return values
