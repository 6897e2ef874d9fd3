"""The device: which GPU is there, and what of it decides what can be timed on it."""

import dataclasses

import torch  # pyright: ignore[reportMissingImports]

USUAL_CACHE = 50e6
"""Bytes of last-level cache to assume where PyTorch does not say: an H100's."""

INFINITY_CACHE = 256e6
"""Bytes of the cache behind the L2 of AMD's large GPUs, which no property tells."""


@dataclasses.dataclass(frozen=True)
class Device:
    """A GPU, or the CPU in its place for tests.

    Attributes:
        name: name of the product.
        place: where PyTorch puts tensors, such as "cuda:0".
        kind: "cuda", "rocm" or "cpu".
        memory: bytes that may be used.
        cache: bytes of the last cache before the memory.
        processors: streaming multiprocessors or compute units.
        shared: bytes of shared memory that a block may have.
        fp8: its 8-bit float of 4 exponent bits, None if it multiplies none.
        bus: PCI address.
        serial: NVIDIA's identifier of the card, if any.
    """

    name: str
    place: str
    kind: str
    memory: float
    cache: float
    processors: int
    shared: int
    fp8: torch.dtype | None
    bus: str = ""
    serial: str = ""

    @property
    def is_gpu(self) -> bool:
        return self.kind != "cpu"

    def wait(self) -> None:
        """Wait until all that was asked of it is done."""
        if self.is_gpu:
            torch.cuda.synchronize()

    def free(self) -> None:
        """Give back what PyTorch holds without using it."""
        if self.is_gpu:
            torch.cuda.empty_cache()


def find(wanted: str) -> Device:
    """The device of a name, which PyTorch uses from here on.

    Args:
        wanted: "cuda", "cuda:N" or "cpu".

    Raises:
        ValueError: no such name, no such GPU, or one without bf16.
    """
    if wanted == "cpu":
        torch.set_num_threads(1)  # threads that wait for one another take far longer than such sizes
        return Device("CPU", "cpu", "cpu", 1e9, 1e5, 4, 1 << 16, torch.float8_e4m3fn)
    kind, _, number = wanted.partition(":")
    if kind != "cuda" or (number and not number.isdecimal()):
        raise ValueError(f"device = {wanted!r}: must be cuda, cuda:N (AMD's GPUs too) or, for tests, cpu")
    if torch.version.cuda is None and torch.version.hip is None:
        raise ValueError(
            f"PyTorch {torch.__version__} is built for CPUs; install one for CUDA or ROCm: "
            "https://pytorch.org/get-started"
        )
    if not torch.cuda.is_available():
        raise ValueError("PyTorch finds no GPU; see that nvidia-smi or rocm-smi lists one and its driver is new enough")
    index, count = int(number or 0), torch.cuda.device_count()
    if index >= count:
        raise ValueError(f"device = {wanted!r}: PyTorch finds {count} GPU{'s' * (count > 1)}, the first is cuda:0")
    torch.cuda.set_device(index)
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ValueError(f"{torch.cuda.get_device_name(index)} has no bf16, which is what is timed; use a newer GPU")
    return _describe(index)


def _describe(index: int) -> Device:
    has = torch.cuda.get_device_properties(index)
    rocm = torch.version.hip is not None
    free, _ = torch.cuda.mem_get_info(index)
    cache = float(getattr(has, "L2_cache_size", 0) or USUAL_CACHE)
    domain, bus, slot = (getattr(has, f"pci_{part}_id", 0) for part in ("domain", "bus", "device"))
    return Device(
        name=has.name,
        place=f"cuda:{index}",
        kind="rocm" if rocm else "cuda",
        memory=0.95 * free,
        cache=max(cache, INFINITY_CACHE) if rocm else cache,
        processors=has.multi_processor_count,
        shared=int(getattr(has, "shared_memory_per_block_optin", 0) or 1 << 16),
        fp8=_fp8(has, rocm),
        bus=f"{domain:04x}:{bus:02x}:{slot:02x}.0",
        serial="" if rocm else str(getattr(has, "uuid", "")),
    )


def _fp8(has: object, rocm: bool) -> torch.dtype | None:
    """The format of fp8 products: from Ada on in NVIDIA's GPUs, from CDNA 3 and RDNA 4 on in AMD's."""
    if not rocm:
        return torch.float8_e4m3fn if (getattr(has, "major", 0), getattr(has, "minor", 0)) >= (8, 9) else None
    architecture = str(getattr(has, "gcnArchName", "")).partition(":")[0]
    if architecture == "gfx942":
        return torch.float8_e4m3fnuz
    return torch.float8_e4m3fn if architecture in ("gfx950", "gfx1200", "gfx1201") else None
