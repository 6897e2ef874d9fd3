"""A decoder of a model's shape with random weights: a pass over whole sequences, and a step of one token in each."""

import dataclasses
from collections.abc import Callable

import torch  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # pyright: ignore[reportMissingImports]

from genz_jax.measure.attention import attend
from genz_jax.measure.cases import Bench
from genz_jax.measure.products import SCALE, grouped_product, scaled_product


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of a decoder; `experts` is 0 where its layers are dense."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    experts: int = 0
    top_k: int = 0

    def layer_weights(self) -> int:
        """Weights of a layer."""
        attention = (2 * self.heads + 2 * self.kv_heads) * self.head_dim * self.hidden
        return attention + 3 * max(1, self.experts) * self.hidden * self.intermediate + self.experts * self.hidden

    def size(self, fp8: bool) -> float:
        """Bytes of all weights; embedding and head stay in bf16."""
        return self.layers * self.layer_weights() * (1 if fp8 else 2) + 4.0 * self.vocabulary * self.hidden


class Decoder:
    """Weights, and what is done with them.

    Attributes:
        shape: sizes.
        touched: if a list, each pass adds the number of experts that each of its layers uses.
    """

    def __init__(self, bench: Bench, shape: Shape, fp8: bool) -> None:
        """Draw weights.

        Args:
            bench: where they are and what kernels there are.
            shape: sizes.
            fp8: weights and inputs of products in fp8, but for embedding, head and routers.
        """
        self.shape = shape
        self.touched: list[int] | None = None
        self._bench, self._kernels, self._place = bench, bench.kernels, bench.device.place
        self._fp8 = bench.device.fp8 if fp8 else None
        hidden, width = shape.hidden, shape.head_dim
        self._qkv = self._weights((shape.heads + 2 * shape.kv_heads) * width, hidden)
        self._out = self._weights(hidden, shape.heads * width)
        grouped = (shape.experts,) if shape.experts else ()
        self._up = self._weights(*grouped, 2 * shape.intermediate, hidden)
        self._down = self._weights(*grouped, hidden, shape.intermediate)
        self._router = [bench.random(shape.experts, hidden, scale=SCALE) for _ in range(shape.layers if grouped else 0)]
        self._norm = bench.random(hidden)
        self._embedding = bench.random(shape.vocabulary, hidden, scale=SCALE)
        self._head = bench.random(shape.vocabulary, hidden, scale=SCALE)
        turn = torch.linspace(0, 3, width // 2, device=self._place)
        self._angles = (turn.cos(), turn.sin())
        widest = max(2 * shape.intermediate, hidden, (shape.heads + 2 * shape.kv_heads) * width)
        self._ones = torch.ones(1, widest, device=self._place)

    def _weights(self, *sizes: int) -> list[torch.Tensor]:
        dtype = self._fp8 or torch.bfloat16
        return [self._bench.random(*sizes, dtype=dtype, scale=SCALE) for _ in range(self.shape.layers)]

    def decode(self, tokens: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """The next token of each sequence.

        Args:
            tokens: the last of each sequence, whose keys and values are written at the end of the cache.
            keys: cache, (layers, batch, heads of keys, context, width).
            values: the same.
        """
        shape, batch = self.shape, len(tokens)

        def attention(layer: int, qkv: torch.Tensor) -> torch.Tensor:
            query = torch.empty(batch, shape.heads, shape.head_dim, device=self._place, dtype=qkv.dtype)
            last = keys[layer, :, :, -1], values[layer, :, :, -1]
            self._kernels.rotate_and_cache(qkv, self._angles, query, *last)
            query = query.view(batch, shape.kv_heads, -1, shape.head_dim)
            device = self._bench.device
            return self._kernels.decode_split(query, keys[layer], values[layer], device.processors, device.shared)

        return self._sampled(self._layers(tokens, attention))

    def prefill(self, tokens: torch.Tensor, kernel: str) -> torch.Tensor:
        """The token behind each sequence.

        Args:
            tokens: (batch, tokens of a sequence).
            kernel: which of PyTorch's attends.
        """
        shape, (batch, length) = self.shape, tokens.shape
        rows = batch * length
        # Every layer writes its keys and values over those of the layer before.
        cache = torch.empty(2, rows, shape.kv_heads, shape.head_dim, device=self._place, dtype=torch.bfloat16)

        def attention(layer: int, qkv: torch.Tensor) -> torch.Tensor:
            query = torch.empty(rows, shape.heads, shape.head_dim, device=self._place, dtype=qkv.dtype)
            self._kernels.rotate_and_cache(qkv, self._angles, query, *cache)
            q, k, v = (x.view(batch, length, -1, shape.head_dim).transpose(1, 2) for x in (query, *cache))
            return attend(q, k, v, kernel, causal=True).transpose(1, 2)

        x = self._layers(tokens.flatten(), attention)
        return self._sampled(x.view(batch, length, -1)[:, -1])

    def _layers(self, tokens: torch.Tensor, attention: Callable[[int, torch.Tensor], torch.Tensor]) -> torch.Tensor:
        x = self._embedding[tokens]
        residual = torch.zeros_like(x)
        for layer in range(self.shape.layers):
            x = self._kernels.add_rms_norm(x, residual, self._norm)
            x = attention(layer, self._product(x, self._qkv[layer])).reshape(len(tokens), -1)
            x = self._kernels.add_rms_norm(self._product(x, self._out[layer]), residual, self._norm)
            x = self._experts(x, layer) if self.shape.experts else self._dense(x, layer)
        return self._kernels.add_rms_norm(x, residual, self._norm)

    def _product(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        if self._fp8 is None:
            return F.linear(x, weight)
        rows, scales = self._kernels.quantize(x, self._fp8)
        return scaled_product(rows, weight, scales, self._ones[:, : len(weight)])

    def _dense(self, x: torch.Tensor, layer: int) -> torch.Tensor:
        return self._product(self._kernels.silu_mul(self._product(x, self._up[layer])), self._down[layer])

    def _experts(self, x: torch.Tensor, layer: int) -> torch.Tensor:
        shape = self.shape
        scores, chosen = torch.topk(F.linear(x, self._router[layer]), shape.top_k, dim=-1)
        expert, order = torch.sort(chosen.flatten())
        ends = torch.searchsorted(expert, torch.arange(shape.experts, device=self._place), right=True).to(torch.int32)
        if self.touched is not None:
            self.touched.append(int(torch.unique(expert).numel()))
        token = order // shape.top_k
        up = grouped_product(x[token], self._up[layer].transpose(1, 2), ends)
        down = grouped_product(self._kernels.silu_mul(up), self._down[layer].transpose(1, 2), ends)
        share = torch.softmax(scores.float(), -1).flatten()[order].to(down.dtype)
        return torch.zeros_like(x).index_add_(0, token, down * share[:, None])

    def _sampled(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self._head).argmax(-1)
