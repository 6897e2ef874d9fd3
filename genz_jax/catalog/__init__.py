"""Catalogue: models, platforms and workloads by name, from the TOML files beside this page.

In: names, files and hub ids. Out: specs, each with its source. It never knows what a model costs or takes.
"""

import dataclasses
import functools
import importlib.util
import os
import tomllib
from importlib import resources
from typing import Any

import equinox as eqx

from genz_jax.base import units
from genz_jax.base.fields import shared
from genz_jax.base.label import Label
from genz_jax.catalog import names, quantized_names
from genz_jax.catalog.hugging_face import checkpoints, read as hugging_face
from genz_jax.catalog.kernel_files import measured as measured, read_library
from genz_jax.catalog.tables import build, check_keys, parts_of
from genz_jax.kernels import Kernels
from genz_jax.specs import Model, NetworkLevel, Platform, Precision, Rates, Workload

_PARTS = {name: kind for name, kind in parts_of(Model).items() if name != "projections"}
_MODEL_NUMBERS = (
    "hidden_size",
    "layers",
    "vocab_size",
    "final_norms",
    "head_biases",
    "other_parameters",
    "lm_head",
    "bidirectional",
)
_MTP_NUMBERS = ("mtp_layers", "mtp_dense", "mtp_local")
_MODEL_KEYS = {"tied_embeddings", "projections", *_MODEL_NUMBERS, *_MTP_NUMBERS, *_PARTS}
_MODEL_NOTES = {"aliases", "source", "parameters", "active_parameters", "max_context", "precision", "checkpoints"}
_PLATFORM_KEYS = {"power", "mem_capacity", "mem_bw", "flops", "network"}
_PLATFORM_NOTES = {"aliases", "vendor", "year", "kind", "source", "notes", "onchip_capacity", "price", "processors"}
_RUNTIME = "0.3 GiB"  # context and workspaces of a GPU's libraries: what vLLM logs beside tensors (docs/memory.md)
_WORKLOAD_KEYS = {"batch", "beams", "input_tokens", "output_tokens"}
_WORKLOAD_NOTES = {"aliases", "source", "ttft", "tpot"}


@functools.cache
def _entries(file: str, keys: frozenset[str]) -> dict[str, dict[str, Any]]:
    """Entries of a catalogue file by name, checked for unknown keys, and that each has a source."""
    text = resources.files("genz_jax.catalog").joinpath(f"{file}.toml").read_text(encoding="utf-8")
    entries = tomllib.loads(text)
    for name, entry in entries.items():
        if unknown := set(entry) - keys:
            raise ValueError(f"{file}.toml: {name!r} has the unknown keys {', '.join(sorted(unknown))}")
        if file == "models":
            check_keys(Model, {key: entry[key] for key in _MODEL_KEYS & set(entry)}, f"{file}.toml: {name!r}")
        if file == "models" and (missing := {"hidden_size", "layers", "vocab_size"} - set(entry)):
            raise ValueError(f"{file}.toml: {name!r} lacks {', '.join(sorted(missing))}")
        if not entry.get("source"):
            raise ValueError(f"{file}.toml: {name!r} has no source")
    return entries


@functools.cache
def _index(file: str, keys: frozenset[str]) -> dict[str, str]:
    """Entry name by every name in lower case, aliases included."""
    index: dict[str, str] = {}
    for name, entry in _entries(file, keys).items():
        for alias in (name, *entry.get("aliases", []), *entry.get("checkpoints", ())):
            if index.setdefault(alias.lower(), name) != name:
                raise ValueError(f"{file}.toml: the name {alias!r} stands for {index[alias.lower()]!r} and {name!r}")
    return index


_MODELS = ("models", frozenset(_MODEL_KEYS | _MODEL_NOTES))
_PLATFORMS = ("platforms", frozenset(_PLATFORM_KEYS | _PLATFORM_NOTES))
_WORKLOADS = ("use_cases", frozenset(_WORKLOAD_KEYS | _WORKLOAD_NOTES))


@functools.cache
def _forms(file: str, keys: frozenset[str]) -> names.Index:
    """Entries by the forms of every name, aliases included."""
    return names.Index.of({name: entry.get("aliases", ()) for name, entry in _entries(file, keys).items()})


_LISTINGS = {"model": "gz.models()", "platform": "gz.platforms()", "workload": "gz.workloads()"}
_PLACEHOLDERS = ("dummy",)
"""Names that stand for any model, and so for none."""


def _find(what: str, name: str, source: tuple[str, frozenset[str]]) -> tuple[str, dict[str, Any]]:
    entries, text = _entries(*source), str(name)
    found = _index(*source).get(text.strip().lower())
    if found is None:
        shown = repr(name if len(text) <= 60 else f"{text[:57]}...")
        matches = _forms(*source).look_up(text) if 0 < len(text) <= names.LONGEST else set()
        if not matches and what == "model" and (quantized := quantized_names.split(text)) is not None:
            matches = _forms(*source).look_up(quantized.base)
        if len(matches) > 1:
            raise ValueError(f"{what} {shown} may be {' or '.join(sorted(matches))}; give one of these names")
        if not matches:
            raise ValueError(f"unknown {what} {shown}{_hint(text, source)}; all names: {_LISTINGS[what]}")
        found = matches.pop()
    return found, entries[found]


def _hint(name: str, source: tuple[str, frozenset[str]]) -> str:
    if name.strip().lower() in _PLACEHOLDERS:
        return ", a placeholder that has no shape"
    spellings = {entry: values.get("aliases", ()) for entry, values in _entries(*source).items()}
    close = names.nearest(name, spellings)
    return f"; did you mean {', '.join(close)}?" if close else ""


def _source(what: str) -> tuple[str, frozenset[str]]:
    if what not in _LISTINGS:
        raise ValueError(f"about {what!r}: must be one of model, platform, workload")
    return {"model": _MODELS, "platform": _PLATFORMS, "workload": _WORKLOADS}[what]


def models() -> list[str]:
    """Names of all models of the catalogue.

    Example:
        >>> import genz_jax as gz
        >>> "llama-3.1-8b" in gz.models()
        True
    """
    return list(_entries(*_MODELS))


def platforms() -> list[str]:
    """Names of all platforms of the catalogue.

    Example:
        >>> import genz_jax as gz
        >>> "H100-SXM" in gz.platforms()
        True
    """
    return list(_entries(*_PLATFORMS))


def workloads() -> list[str]:
    """Names of all workloads of the catalogue.

    Example:
        >>> import genz_jax as gz
        >>> "chat" in gz.workloads()
        True
    """
    return list(_entries(*_WORKLOADS))


def spellings(what: str) -> list[str]:
    """All names of the catalogue, then all aliases.

    Args:
        what: "model", "platform" or "workload".
    """
    entries = _entries(*_source(what))
    return [*entries, *(alias for entry in entries.values() for alias in entry.get("aliases", ()))]


def model(name: str) -> Model:
    """Return a model of the catalogue, or the one that a Hugging Face config describes.

    Args:
        name: its name or an alias such as the hub id; case, organisation, separators and ends like -hf, -instruct and
            -chat do not matter. Or the path of a `config.json` or of a folder with one.

    Raises:
        ValueError: no such model, with the nearest names of its family; a name that may be several; or a config that
            cannot be read.

    Example:
        >>> import genz_jax as gz
        >>> gz.model("meta-llama/Llama-3.1-8B-Instruct").name
        'llama-3.1-8b'
    """
    listed = str(name).strip().lower() in _index(*_MODELS)
    if not listed and hugging_face.is_config(str(name)):
        return checkpoints.read_model(name)
    found, entry = _find("model", name, _MODELS)
    plain = _model(found)
    try:
        formats = _stored(str(name), entry, plain)
    except ValueError as error:
        formats = error
    return plain if formats is None else checkpoints.with_formats(plain, formats)


def _stored(name: str, entry: dict[str, Any], plain: Model) -> str | None:
    """Formats of the checkpoint of that name, as the text of a precision; None for 16 bits."""
    by_name = {checkpoint.lower(): formats for checkpoint, formats in entry.get("checkpoints", {}).items()}
    if (key := name.strip().lower()) in by_name:
        return by_name[key]
    if quantized_names.split(key) is not None:
        return quantized_names.read_formats(name, plain)
    return entry.get("precision")


def load(path_or_id: str | os.PathLike[str]) -> tuple[Model, Precision]:
    """Return a model and the number formats of its checkpoint.

    Args:
        path_or_id: a `config.json`, a folder with one (a `hf_quant_config.json` beside it is read too), the name of a
            catalogue model, or a hub id.

    Returns:
        The model, and its precision, whose `name` is the text of the formats; bf16 where nothing is quantized.

    Raises:
        ValueError: no such model, a config that cannot be read, or formats that one precision cannot say.

    Example:
        >>> import genz_jax as gz
        >>> model, precision = gz.load("deepseek-v3")
        >>> int(model.layers), precision.name
        (61, 'fp8-fp8-bf16/embedding=bf16')
    """
    try:
        found = model(str(path_or_id))
    except ValueError as unknown:
        name = str(path_or_id)
        if hugging_face.is_config(name) or name.count("/") != 1 or importlib.util.find_spec("huggingface_hub") is None:
            raise
        try:
            found = checkpoints.read_model(name)
        except hugging_face.NotOnTheHub as error:
            raise ValueError(f"{unknown}; {str(error)[:140]}") from None
    return found, checkpoints.own_precision(found)


@functools.cache
def _model(name: str) -> Model:
    table = {key: value for key, value in _entries(*_MODELS)[name].items() if key in _MODEL_KEYS}
    table["tied_embeddings"] = float(table.get("tied_embeddings", False))
    return shared(
        build(Model, table).replace(label=Label(name, max_context=_entries(*_MODELS)[name].get("max_context")))
    )


def platform(name: str | os.PathLike[str], kernels: str | os.PathLike[str] | None = None) -> Platform:
    """Return a platform of the catalogue.

    Args:
        name: its name or an alias, such as what nvidia-smi prints; case, vendor and separators do not matter; or the
            path of a platform file, which ends in .toml.
        kernels: whose measured kernels it runs: those of a software stack that was measured on it ("pytorch"), of a
            platform file, or "ideal" ones at the roofline, as by default; those of a file are its own.

    Raises:
        ValueError: no such platform, with the nearest names; or a name that may be several; a file that is none of a
            platform; kernels that have not been measured.

    Example:
        >>> import genz_jax as gz
        >>> gz.platform("NVIDIA H100 80GB HBM3").name
        'H100-SXM'
    """
    if str(name).endswith(".toml"):
        found = read_library(name).platform
    else:
        found = _platform(_find("platform", str(name), _PLATFORMS)[0])
    if kernels is None:
        return found
    if kernels == "ideal":
        return found.ideal()
    if str(kernels).endswith(".toml"):
        return found.replace(kernels=read_library(kernels).kernels())
    return found.replace(kernels=measured(found.name, str(kernels)).kernels())


@functools.cache
def _platform(name: str) -> Platform:
    entry = _entries(*_PLATFORMS)[name]
    peaks = {key: units.parse(text, units.FLOP_RATE) for key, text in entry["flops"].items()}
    network = tuple(
        NetworkLevel(level["size"], level["bandwidth"], level["latency"], level["topology"])
        for level in entry["network"]
    )
    return shared(
        Platform(
            peaks["bf16"],
            entry["mem_bw"],
            entry["mem_capacity"],
            network=network,
            rates=Rates.from_peaks(peaks),
            power=entry["power"],
            runtime_memory=_RUNTIME if entry["kind"] == "GPU" else 0.0,
            label=Label(name),
        )
    )


def ideal_kernels(platform: Platform) -> Kernels:
    """Ideal kernels with the processors and the last cache of a platform of the catalogue, as far as it knows them."""
    entry = _entries(*_PLATFORMS).get(platform.name, {})
    found: dict[str, Any] = {"processors": entry["processors"]} if "processors" in entry else {}
    if "onchip_capacity" in entry:
        found["cache_capacity"] = entry["onchip_capacity"]
    return Kernels(**found)


@dataclasses.dataclass(frozen=True)
class ListPrice:
    """What a provider asked for an hour of a device, on demand.

    Attributes:
        usd_per_hour: the price in $.
        provider: who asked it.
        date: when it was read.
        source: where it stands.
    """

    usd_per_hour: float
    provider: str
    date: str
    source: str

    def __str__(self) -> str:
        return f"list price of {self.usd_per_hour:.2f} $ per device and hour, {self.provider}, {self.date}"


def list_price(platform: str | Platform) -> ListPrice | None:
    """The list price of a platform of the catalogue; None where none is known, or its numbers were changed."""
    platform = _platform(_find("platform", platform, _PLATFORMS)[0]) if isinstance(platform, str) else platform
    entry = _entries(*_PLATFORMS).get(platform.name)
    if entry is None or "price" not in entry or not eqx.tree_equal(platform, _platform(platform.name)):
        return None
    return ListPrice(**entry["price"])


def workload(name: str) -> Workload:
    """Return a workload of the catalogue, such as "chat" or "summarization".

    Args:
        name: its name or an alias; case does not matter.

    Raises:
        ValueError: no such workload; the message has the nearest names.

    Example:
        >>> import genz_jax as gz
        >>> gz.workload("chat").name
        'chat'
    """
    found, entry = _find("workload", name, _WORKLOADS)
    return Workload(label=Label(found), **{key: entry[key] for key in _WORKLOAD_KEYS})


@dataclasses.dataclass(frozen=True)
class Entry:
    """What the catalogue says about an entry beside its numbers: aliases, source, and notes by name."""

    name: str
    aliases: tuple[str, ...]
    source: str | list[str]
    notes: dict[str, Any]


def about(what: str, name: str) -> Entry:
    """Return the aliases, source and notes of a catalogue entry.

    Args:
        what: "model", "platform" or "workload".
        name: its name or an alias.

    Raises:
        ValueError: no such entry.

    Example:
        >>> import genz_jax as gz
        >>> int(gz.catalog.about("model", "llama-3.1-8b").notes["parameters"])
        8030261248
    """
    source = _source(what)
    noted = {"model": _MODEL_NOTES, "platform": _PLATFORM_NOTES, "workload": _WORKLOAD_NOTES}[what]
    found, entry = _find(what, name, source)
    notes = {key: value for key, value in entry.items() if key in noted - {"aliases", "source"}}
    return Entry(found, tuple(entry.get("aliases", ())), entry["source"], notes)


_SHOWN: list[str] = [
    *("Entry", "ListPrice", "about", "list_price", "load", "model", "models", "platform", "platforms", "spellings"),
    *("workload", "workloads"),
]


def __dir__() -> list[str]:
    return _SHOWN
