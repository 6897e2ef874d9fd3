"""Platform files: a platform with its measured kernels as TOML, as `genz-jax calibrate` writes it."""

import dataclasses
import os
import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any

import numpy as np

from genz_jax.base import files
from genz_jax.base.fields import Spec, near
from genz_jax.base.label import Label
from genz_jax.catalog.tables import build, check_keys
from genz_jax.kernels import FORMS, KERNELS, Form, Kernels
from genz_jax.specs import Platform

_NUMBERS = tuple(field.name for field in dataclasses.fields(Kernels) if "units" in field.metadata)
_MEASURED = resources.files("genz_jax.catalog").joinpath("measured")
_SECTIONS = {"title", "platform", "device", "use", "forms", "errors", "notes"}


@dataclasses.dataclass(frozen=True)
class KernelLibrary:
    """Forms that were fitted for a device and a software stack.

    Attributes:
        title: whose they are: "H100-SXM, pytorch".
        platform: the device, with the kernels of `use`.
        forms: form by the name of a kernel, section/name as in the table that it was fitted on.
        use: name of a form by the kernel that the engine runs it for, a field of `Kernels`.
        device: numbers of `Kernels` that all forms share.
        errors: held-out error and spread of residuals by name.
        notes: what is known besides: sources, rows, what was assumed.
    """

    title: str
    platform: Platform
    forms: dict[str, Form]
    use: dict[str, str]
    device: dict[str, float]
    errors: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    notes: dict[str, Any] = dataclasses.field(default_factory=dict)

    def kernels(self, **use: str) -> Kernels:
        """The kernels that the engine runs.

        Args:
            **use: name of a form instead of the usual one, by kernel: `prefill_attention="prefill_attention/flash"`.
        """
        chosen: dict[str, Any] = {kernel: self.forms[name] for kernel, name in (self.use | use).items()}
        chosen |= self.device
        return Kernels(**chosen, label=Label(self.title + self._accuracy()))

    def _accuracy(self) -> str:
        """Errors of whole steps, where there were some."""
        found = {
            stage: [found["error"] for name, found in self.errors.items() if name.startswith(f"{stage}/")]
            for stage in ("prefill", "decode")
        }
        said = [f"{stage} ±{100 * max(errors):.0f} %" for stage, errors in found.items() if errors]
        return f", {', '.join(said)}" if said else ""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file, whole or not at all.

        Raises:
            ValueError: the path does not end in .toml, or cannot be written.
        """
        import tomli_w

        content = {
            "title": self.title,
            "notes": self.notes,
            "platform": _table(self.platform.replace(kernels=None)),
            "device": self.device,
            "use": self.use,
            "errors": self.errors,
            "forms": {name: {"form": type(form).__name__, **_table(form)} for name, form in self.forms.items()},
        }

        def write(fresh: str) -> None:
            with open(fresh, "wb") as file:
                tomli_w.dump(content, file)

        files.write(path, {".toml": write})


def _table(spec: Spec) -> dict[str, Any]:
    """Numbers of a spec and its parts by field name, in base units; absent ones are left out."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        if isinstance(value, Label):
            found["label"] = value.text
        elif isinstance(value, tuple):
            found[field.name] = [_table(item) for item in value]
        elif isinstance(value, Spec):
            found[field.name] = _table(value)
        elif value is not None:
            found[field.name] = float(np.asarray(value))
    return found


def read_library(path: str | os.PathLike[str]) -> KernelLibrary:
    """Read a platform file.

    Raises:
        ValueError: no such file, no TOML, or contents that are none of a platform; the message names the part.
    """
    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"platform file {str(path)!r}: cannot be read: {error}") from None
    return library_of(content, str(path))


def library_of(content: Mapping[str, Any], where: str) -> KernelLibrary:
    """The library in the tables of a platform file.

    Args:
        content: the tables.
        where: the file, for errors.

    Raises:
        ValueError: contents that are none of a platform.
    """

    def refuse(reason: str) -> ValueError:
        return ValueError(f"platform file {where!r}: {reason}")

    if missing := {"title", "platform", "forms", "use"} - set(content):
        raise refuse(f"lacks {', '.join(sorted(missing))}; `genz-jax calibrate` writes whole ones")
    if more := sorted(set(content) - _SECTIONS):
        raise refuse(f"has the unknown tables {', '.join(more)}{near(more[0], _SECTIONS)}")
    forms = {}
    for name, table in content["forms"].items():
        kind = FORMS.get(table.get("form", ""))
        if kind is None:
            raise refuse(f"forms.{name}: form = {table.get('form')!r}: must be one of {', '.join(FORMS)}")
        numbers = {key: value for key, value in table.items() if key != "form"}
        check_keys(kind, numbers, f"forms.{name} of {where!r}")
        forms[name] = kind(**numbers)
    for kernel, name in content["use"].items():
        if kernel not in KERNELS:
            raise refuse(f"use.{kernel}: no such kernel{near(kernel, KERNELS)}")
        if name not in forms:
            raise refuse(f"use.{kernel} = {name!r}: is none of the forms{near(name, forms)}")
    device = dict(content.get("device", {}))
    if more := sorted(set(device) - set(_NUMBERS)):
        raise refuse(f"device.{more[0]}: no such number{near(more[0], _NUMBERS)}")
    table = dict(content["platform"])
    label = Label(str(table.pop("label", content["title"])))
    check_keys(Platform, table, f"platform of {where!r}")
    rest = (dict(content["use"]), device, dict(content.get("errors", {})), dict(content.get("notes", {})))
    found = KernelLibrary(content["title"], build(Platform, table).replace(label=label), forms, *rest)
    return dataclasses.replace(found, platform=found.platform.replace(kernels=found.kernels()))


def measured(platform: str, stack: str) -> KernelLibrary:
    """Kernels of a software stack that were measured on a platform of the catalogue.

    Raises:
        ValueError: none were, with those that there are.
    """
    known = {file.name.removesuffix(".toml"): file for file in _MEASURED.iterdir() if file.name.endswith(".toml")}
    file = known.get(f"{platform}.{stack}")
    if file is None:
        there = sorted(name.removeprefix(f"{platform}.") for name in known if name.startswith(f"{platform}."))
        raise ValueError(
            f"kernels = {stack!r}: none of that stack were measured on {platform}; there are "
            f"{', '.join(['ideal', *there])}, or a file: genz-jax measure, then genz-jax calibrate"
        )
    return library_of(tomllib.loads(file.read_text(encoding="utf-8")), file.name)
