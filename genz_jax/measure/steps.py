"""Whole steps: decoding and prefill of decoders with random weights, whose layers are cut to what fits."""

import dataclasses
import functools
import itertools

import torch  # pyright: ignore[reportMissingImports]

from genz_jax.measure import attention
from genz_jax.measure.cases import Bench, Calls, Case, Stream, drawn, powered
from genz_jax.measure.decoder import Decoder, Shape

MODELS = {
    "llama-3.1-8b": Shape(32, 4096, 32, 8, 128, 14336, 128256),
    "llama-3.1-70b": Shape(12, 8192, 64, 8, 128, 28672, 128256),
    "mixtral-8x7b": Shape(8, 4096, 32, 8, 128, 14336, 32000, experts=8, top_k=2),
    "qwen3-30b-a3b": Shape(12, 2048, 32, 4, 128, 768, 151936, experts=128, top_k=8),
}
"""Shapes; the layers are those that are run, where the memory is large enough."""

TINY_MODELS = {"tiny": Shape(2, 64, 4, 2, 16, 96, 128), "tiny-moe": Shape(2, 64, 4, 2, 16, 32, 128, 4, 2)}
FEWEST_LAYERS = 2
SHARE_OF_WEIGHTS = 0.6
"""Of the memory, what weights may take: caches and activations need the rest."""

BATCHES = tuple(2**n for n in range(9))
CONTEXTS = (256, 1024, 2048, 4096, 16384, 65536)
MOST_CACHE = 30e9
PREFILL_BATCHES, PREFILL_TOKENS, MOST_TOKENS = (1, 2, 4, 8), tuple(2**n for n in range(6, 15)), 16384
FLASH_EVERY = 3
"""Of prefill steps, one in so many is timed with FlashAttention too."""

EVERY = 9


class Steps:
    """Steps of one model in one format, whose decoder is made when the first of them needs it."""

    def __init__(self, bench: Bench, name: str, fp8: bool) -> None:
        """Plan them.

        Args:
            bench: where they run.
            name: of the model.
            fp8: products in fp8.
        """
        self._bench, self._name, self._fp8 = bench, name, fp8
        self._decoder: Decoder | None = None
        full = (TINY_MODELS if bench.tiny else MODELS)[name]
        others = dataclasses.replace(full, layers=0).size(fp8)
        room = (SHARE_OF_WEIGHTS * bench.device.memory - others) / (full.layer_weights() * (1 if fp8 else 2))
        self._shape = dataclasses.replace(full, layers=max(FEWEST_LAYERS, min(full.layers, int(room))))
        self._unable = self._missing()

    def _missing(self) -> str:
        """Why no step can be run, if so."""
        needed = ["add_rms_norm", "silu_mul", "rotate_and_cache", *(["quantize"] if self._fp8 else [])]
        without = self._bench.unable_fp8() if self._fp8 else ""
        return without or next((self._bench.faulty[name] for name in needed if name in self._bench.faulty), "")

    def stream(self, share: float, sections: set[str], seed: int) -> Stream:
        """Their cases.

        Args:
            share: of the time.
            sections: "decode", "prefill" or both.
            seed: of the order.
        """
        cases = [case for case in (*self._decodes(), *self._prefills()) if case.section in sections]
        return Stream(share, powered(drawn(cases, seed), EVERY), self.release)

    def release(self) -> None:
        """Drop the weights."""
        self._decoder = None

    def _model(self) -> Decoder:
        if self._decoder is None:
            self._decoder = Decoder(self._bench, self._shape, self._fp8)
        return self._decoder

    def _parameters(self) -> dict[str, int | str]:
        return {"layers": self._shape.layers, "format": "fp8" if self._fp8 else "bf16"}

    def _decodes(self) -> list[Case]:
        shape, found = self._shape, []
        batches, contexts = ((1, 4), (8, 32)) if self._bench.tiny else (BATCHES, CONTEXTS)
        for batch, context in itertools.product(batches, contexts):
            cache = 4.0 * shape.layers * batch * shape.kv_heads * context * shape.head_dim
            if cache < MOST_CACHE:
                parameters = self._parameters() | {"batch": batch, "context": context}
                build = functools.partial(self._decode, batch, context)
                unable = self._unable or self._bench.faulty.get("decode_split", "")
                found.append(Case("decode", self._name, parameters, build, shape.size(self._fp8) + cache, unable))
        return found

    def _prefills(self) -> list[Case]:
        shape, found = self._shape, []
        batches, lengths = ((1, 2), (8, 32)) if self._bench.tiny else (PREFILL_BATCHES, PREFILL_TOKENS)
        kernels = [name for name in ("cudnn", "flash") if not attention.unable(self._bench, name)]
        sizes = drawn([(b, n) for b in batches for n in lengths if b * n <= MOST_TOKENS], 7)
        for i, (batch, tokens) in enumerate(sizes):
            for kernel in kernels if i % FLASH_EVERY == 0 else kernels[:1]:
                parameters = self._parameters() | {"batch": batch, "tokens": tokens, "attention": kernel}
                build = functools.partial(self._prefill, batch, tokens, kernel)
                rows = batch * tokens * max(1, shape.top_k)
                passing = 2.0 * rows * (4 * shape.hidden + 3 * shape.intermediate)
                size = shape.size(self._fp8) + passing
                found.append(Case("prefill", self._name, parameters, build, size, self._unable))
        return found

    def _decode(self, batch: int, context: int) -> Calls:
        model, shape = self._model(), self._shape
        sizes = (shape.layers, batch, shape.kv_heads, context, shape.head_dim)
        keys, values = self._bench.random(*sizes), self._bench.random(*sizes)
        return self._calls(functools.partial(model.decode, self._tokens(batch), keys, values))

    def _prefill(self, batch: int, tokens: int, kernel: str) -> Calls:
        return self._calls(functools.partial(self._model().prefill, self._tokens(batch, tokens), kernel))

    def _tokens(self, *sizes: int) -> torch.Tensor:
        return torch.randint(self._shape.vocabulary, sizes, device=self._bench.device.place)

    def _calls(self, call: functools.partial[torch.Tensor]) -> Calls:
        """The step, with the experts that a layer touches in the mean: tokens that are alike choose alike."""
        if not self._shape.experts:
            return Calls([call])
        model = self._model()
        model.touched = []
        try:
            call()
            return Calls([call], {"distinct": f"{sum(model.touched) / len(model.touched):.2f}"})
        finally:
            model.touched = None
