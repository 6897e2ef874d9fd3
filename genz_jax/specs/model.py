"""Architecture: a language model as counts of layers of each kind. An absent part is None and costs nothing."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx

from genz_jax.base import sense, units
from genz_jax.base.fields import COUNT, NOT_NEGATIVE, SHARE, WHOLE, Number, Spec, number, single
from genz_jax.base.label import Label, label

AttentionT = TypeVar("AttentionT", bound="Attention")

# ------------------------------------------------------------------------------------------------------ attention


def _at_most_layers(part: Any, *names: str) -> None:
    """Raise ValueError if a part has more layers of a kind than layers."""
    for name in names:
        numbers = single(getattr(part, name), part.layers)
        if numbers is not None and numbers[0] > numbers[1]:
            where = f"{type(part).__name__}.{name} = {numbers[0]:g}"
            raise ValueError(f"{where}: must be at most the layers of this kind, {numbers[1]:g}")


class Attention(Spec):
    """Attention layers of one kind: MHA (kv_heads = heads), GQA, or MQA (kv_heads = 1)."""

    layers: Number = number(units.ONE, "layers of this kind", rule=COUNT, limits=sense.LAYERS)
    heads: Number = number(units.ONE, "query heads", rule=WHOLE)
    kv_heads: Number = number(units.ONE, "key and value heads", rule=WHOLE)
    head_dim: Number = number(units.ONE, "size of one head of queries and keys", rule=WHOLE)
    v_head_dim: Number = number(
        units.ONE, "size of one head of values, 0 for that of keys", 0, rule=COUNT, keyword=True
    )
    value_projection: Number = number(
        units.ONE, "1 with a projection of values, 0 if keys are the values", 1, rule=SHARE, keyword=True
    )
    output_gate: Number = number(
        units.ONE, "columns of the gate on the output, 0 for none", 0, rule=COUNT, keyword=True
    )
    input_size: Number = number(units.ONE, "width of the input, 0 for the model's", 0, rule=COUNT, keyword=True)
    norms: Number = number(units.ONE, "norm vectors of model width", 1, rule=COUNT, keyword=True)
    qk_norms: Number = number(
        units.ONE, "elements of the norms of queries and keys, mean of the layers", 0, rule=NOT_NEGATIVE, keyword=True
    )
    biases: Number = number(units.ONE, "elements of biases and attention sinks", 0, rule=COUNT, keyword=True)
    tied_layers: Number = number(units.ONE, "layers that share the weights of another", 0, rule=COUNT, keyword=True)
    shared_kv_layers: Number = number(
        units.ONE, "layers that read the keys and values of another", 0, rule=COUNT, keyword=True
    )

    def _agree(self) -> None:
        _at_most_layers(self, "tied_layers", "shared_kv_layers")

    def absent(self: AttentionT, **changes: Any) -> AttentionT:
        return super().absent(tied_layers=0, shared_kv_layers=0, **changes)


class LocalAttention(Attention):
    """Attention layers that see a sliding window, or the chunk of that length that they are in."""

    window: Number = number(units.TOKEN, "tokens that a query sees at most", 4096, rule=WHOLE)


class Indexer(Spec):
    """Small attention that selects what sparse attention looks at (DeepSeek sparse attention, arXiv 2512.02556).

    Every token has one key; queries have `heads` heads whose scores are summed, or taken for a group of heads each.
    """

    layers: Number = number(units.ONE, "layers with an indexer of their own, which the others share", rule=COUNT)
    heads: Number = number(units.ONE, "heads of the queries", rule=WHOLE)
    head_dim: Number = number(units.ONE, "size of one head", rule=WHOLE)
    top_k: Number = number(units.TOKEN, "tokens or entries that a query selects, 0 for all", rule=COUNT)
    block_size: Number = number(units.TOKEN, "neighbours that are selected together", 1, rule=WHOLE, keyword=True)
    head_weights: Number = number(units.ONE, "1 with a projected weight per head, else 0", 1, rule=SHARE, keyword=True)

    def absent(self, **changes: Any) -> "Indexer":
        return super().absent(top_k=0, **changes)


class SparseAttention(Attention):
    """Attention layers whose queries see the tokens that an indexer selects, as in MiniMax M3."""

    indexer: Indexer | None = eqx.field(default=None, kw_only=True)


class LatentAttention(Spec):
    """Multi-head latent attention (MLA, arXiv 2405.04434): keys and values are projections of one cached latent."""

    layers: Number = number(units.ONE, "layers of this kind", rule=COUNT, limits=sense.LAYERS)
    heads: Number = number(units.ONE, "query heads", rule=WHOLE)
    q_lora_rank: Number = number(units.ONE, "rank of the query latent, 0 for a full projection", rule=COUNT)
    kv_lora_rank: Number = number(units.ONE, "rank of the key-value latent", rule=WHOLE)
    qk_nope_head_dim: Number = number(units.ONE, "head size of queries and keys without rotation", rule=WHOLE)
    qk_rope_head_dim: Number = number(units.ONE, "size of the rotated key that all heads share", rule=COUNT)
    v_head_dim: Number = number(units.ONE, "head size of values", rule=WHOLE)
    output_gate: Number = number(
        units.ONE, "columns of the gate on the output, absent for none", None, rule=COUNT, keyword=True, absent=0.0
    )
    norms: Number = number(units.ONE, "norm vectors of model width", 1, rule=COUNT, keyword=True)
    biases: Number = number(units.ONE, "elements of biases", 0, rule=COUNT, keyword=True)
    indexer: Indexer | None = eqx.field(default=None, kw_only=True)


class Compressor(Spec):
    """Layers of compressed attention that also see older tokens, as one entry for every `rate` of them."""

    layers: Number = number(units.ONE, "layers that have it", rule=COUNT)
    rate: Number = number(units.TOKEN, "tokens that become one entry", rule=WHOLE)
    series: Number = number(
        units.ONE, "projections that an entry mixes: 2 where windows overlap, else 1", 1, rule=WHOLE
    )
    indexer: Indexer | None = eqx.field(default=None, kw_only=True)


class CompressedAttention(Spec):
    """Attention to a window of tokens and to compressed entries of all before (DeepSeek-V4).

    One key that is also the value serves all heads. The output is projected in groups of heads, then together. Layers
    without a compressor see the window only; `sparse` ones select among their entries (CSA), `heavy` ones see all of
    theirs (HCA).
    """

    layers: Number = number(units.ONE, "layers of this kind", rule=COUNT, limits=sense.LAYERS)
    heads: Number = number(units.ONE, "query heads", rule=WHOLE)
    head_dim: Number = number(units.ONE, "size of one head, and of the key that is the value", rule=WHOLE)
    q_lora_rank: Number = number(units.ONE, "rank of the query latent", rule=WHOLE)
    window: Number = number(units.TOKEN, "tokens that a query sees uncompressed", rule=WHOLE)
    output_groups: Number = number(units.ONE, "groups of heads of the output projection", rule=WHOLE)
    output_rank: Number = number(units.ONE, "size that a group is projected to", rule=WHOLE)
    norms: Number = number(units.ONE, "norm vectors of model width", 1, rule=COUNT, keyword=True)
    biases: Number = number(units.ONE, "elements of attention sinks", 0, rule=COUNT, keyword=True)
    sparse: Compressor | None = eqx.field(default=None, kw_only=True)
    heavy: Compressor | None = eqx.field(default=None, kw_only=True)


# ------------------------------------------------------------------------------------------------ recurrent states


class SSM(Spec):
    """Mamba-1 layers: selective state space with a diagonal state matrix (arXiv 2312.00752)."""

    layers: Number = number(units.ONE, "layers of this kind", rule=COUNT, limits=sense.LAYERS)
    d_inner: Number = number(units.ONE, "inner channels", rule=WHOLE)
    d_state: Number = number(units.ONE, "state size per channel", rule=WHOLE)
    d_conv: Number = number(units.ONE, "width of the causal convolution", rule=WHOLE)
    dt_rank: Number = number(units.ONE, "rank of the step size projection", rule=WHOLE)
    norms: Number = number(units.ONE, "norm vectors of model width", 1, rule=COUNT, keyword=True)
    inner_norms: Number = number(units.ONE, "elements of the norms of step size, B and C", 0, rule=COUNT, keyword=True)
    biases: Number = number(units.ONE, "elements of biases", 0, rule=COUNT, keyword=True)


class SSD(Spec):
    """Mamba-2 layers: structured state space duality with a scalar decay per head (arXiv 2405.21060)."""

    layers: Number = number(units.ONE, "layers of this kind", rule=COUNT, limits=sense.LAYERS)
    heads: Number = number(units.ONE, "heads", rule=WHOLE)
    head_dim: Number = number(units.ONE, "size of one head", rule=WHOLE)
    d_state: Number = number(units.ONE, "state size per channel", rule=WHOLE)
    groups: Number = number(units.ONE, "groups that share B and C", rule=WHOLE)
    d_conv: Number = number(units.ONE, "width of the causal convolution", rule=WHOLE)
    norms: Number = number(units.ONE, "norm vectors of model width", 1, rule=COUNT, keyword=True)
    inner_norms: Number = number(units.ONE, "elements of the gated norm before the output", 0, rule=COUNT, keyword=True)
    biases: Number = number(units.ONE, "elements of biases", 0, rule=COUNT, keyword=True)


class DeltaNet(Spec):
    """Gated delta net layers: linear attention with a delta-rule update and a decay per head (arXiv 2412.06464).

    With a `decay_rank` the decay is per channel of the keys, from a projection of that rank: Kimi delta attention
    (arXiv 2510.26692).
    """

    layers: Number = number(units.ONE, "layers of this kind", rule=COUNT, limits=sense.LAYERS)
    key_heads: Number = number(units.ONE, "heads of queries and keys", rule=WHOLE)
    value_heads: Number = number(units.ONE, "heads of values, each with a state", rule=WHOLE)
    key_head_dim: Number = number(units.ONE, "size of one head of queries and keys", rule=WHOLE)
    value_head_dim: Number = number(units.ONE, "size of one head of values", rule=WHOLE)
    d_conv: Number = number(units.ONE, "width of the causal convolution", rule=WHOLE)
    norms: Number = number(units.ONE, "norm vectors of model width", 1, rule=COUNT, keyword=True)
    decay_rank: Number = number(
        units.ONE, "rank of the decay's projection, absent for one per head", None, rule=COUNT, keyword=True, absent=0.0
    )
    gate_rank: Number = number(
        units.ONE, "rank of the output gate, absent for a full one", None, rule=COUNT, keyword=True, absent=0.0
    )


class LinearAttention(Spec):
    """Lightning attention layers: linear attention with a fixed decay per head and a gate (arXiv 2501.08313)."""

    layers: Number = number(units.ONE, "layers of this kind", rule=COUNT, limits=sense.LAYERS)
    heads: Number = number(units.ONE, "heads, each with a state", rule=WHOLE)
    head_dim: Number = number(units.ONE, "size of one head", rule=WHOLE)
    norms: Number = number(units.ONE, "norm vectors of model width", 1, rule=COUNT, keyword=True)
    inner_norms: Number = number(units.ONE, "elements of the norm before the output", 0, rule=COUNT, keyword=True)


# --------------------------------------------------------------------------------------------- feed-forward layers


class ShortConvolution(Spec):
    """Gated short convolutions in place of attention (LFM 2, arXiv 2511.23404): out(C · conv(B · x))."""

    layers: Number = number(units.ONE, "layers of this kind", rule=COUNT, limits=sense.LAYERS)
    channels: Number = number(units.ONE, "channels of the convolution", rule=WHOLE)
    d_conv: Number = number(units.ONE, "width of the causal convolution", rule=WHOLE)
    norms: Number = number(units.ONE, "norm vectors of model width", 1, rule=COUNT, keyword=True)
    biases: Number = number(units.ONE, "elements of biases", 0, rule=COUNT, keyword=True)


class FFN(Spec):
    """Dense feed-forward layers. Where their inner sizes differ, the mean gives the same parameters and FLOPs."""

    layers: Number = number(units.ONE, "layers of this kind", rule=COUNT, limits=sense.LAYERS)
    intermediate_size: Number = number(units.ONE, "inner size, mean of the layers", rule=NOT_NEGATIVE)
    in_projections: Number = number(units.ONE, "matrices from hidden to inner size: 2 if gated, else 1", 2, rule=COUNT)
    norms: Number = number(units.ONE, "norm vectors of model width", 1, rule=COUNT, keyword=True)
    biases: Number = number(units.ONE, "elements of biases", 0, rule=COUNT, keyword=True)
    tied_layers: Number = number(units.ONE, "layers that share the weights of another", 0, rule=COUNT, keyword=True)

    def _agree(self) -> None:
        _at_most_layers(self, "tied_layers")

    def absent(self, **changes: Any) -> "FFN":
        return super().absent(tied_layers=0, **changes)


class LatentExperts(Spec):
    """Projections around routed experts that work in a narrower width than the model's."""

    size: Number = number(units.ONE, "width that the routed experts work in", rule=COUNT)
    norm: Number = number(units.ONE, "1 with a norm of their sum, else 0", 0, rule=SHARE, keyword=True)

    def absent(self, **changes: Any) -> "LatentExperts":
        return self.replace(size=0, **changes)


class MoE(Spec):
    """Mixture-of-experts layers: `top_k` of `experts` for each token, and experts that all tokens share."""

    layers: Number = number(units.ONE, "layers of this kind", rule=COUNT, limits=sense.LAYERS)
    experts: Number = number(units.ONE, "routed experts", rule=WHOLE)
    top_k: Number = number(units.ONE, "routed experts of a token", rule=WHOLE)
    intermediate_size: Number = number(units.ONE, "inner size of a routed expert", rule=COUNT)
    in_projections: Number = number(units.ONE, "matrices from hidden to inner size: 2 if gated, else 1", 2, rule=COUNT)
    shared_experts: Number = number(units.ONE, "experts that every token takes", 0, rule=COUNT)
    shared_intermediate_size: Number = number(units.ONE, "inner size of a shared expert", 0, rule=COUNT)
    norms: Number = number(units.ONE, "norm vectors of model width", 1, rule=COUNT, keyword=True)
    biases: Number = number(units.ONE, "elements of biases of a routed expert", 0, rule=COUNT, keyword=True)
    router_biases: Number = number(
        units.ONE, "elements of biases and scales of the router", 0, rule=COUNT, keyword=True
    )
    shared_gate: Number = number(units.ONE, "1 with a gate on the shared experts, else 0", 0, rule=SHARE, keyword=True)
    latent: LatentExperts | None = eqx.field(default=None, kw_only=True)


# ------------------------------------------------------------------------------------------ beside the usual layers


class LayerEmbedding(Spec):
    """An embedding of every token for every layer, gated into its output (Gemma 3n and 4)."""

    layers: Number = number(units.ONE, "layers with an embedding", rule=COUNT)
    size: Number = number(units.ONE, "width of the embedding of one layer", rule=WHOLE)
    vocab_size: Number = number(units.ONE, "entries of the vocabulary", rule=WHOLE)


class Projection(Spec):
    """Linear layers beside attention and feed-forward layers: adapters, routers of residual streams and their like."""

    layers: Number = number(units.ONE, "how many there are", rule=COUNT)
    input_size: Number = number(units.ONE, "width of the input", rule=WHOLE)
    output_size: Number = number(units.ONE, "width of the output", rule=WHOLE)
    uses: Number = number(units.ONE, "times that a token passes each", 1, rule=WHOLE, keyword=True)


class ResidualStreams(Spec):
    """Several residual vectors of which layers read a mixture, where a usual model has one.

    Hyper-connections (arXiv 2512.24880) and AltUp (arXiv 2301.13310) mix n streams into n; attention residuals
    (Kimi K3, arXiv 2607.24653) score the outputs of earlier blocks and read their weighted sum.
    """

    layers: Number = number(units.ONE, "places where streams are mixed", rule=COUNT)
    streams: Number = number(units.ONE, "vectors that a place reads, in the mean", rule=NOT_NEGATIVE)
    outputs: Number = number(units.ONE, "mixtures that a place makes of them", 1, rule=WHOLE)
    scores: Number = number(units.ONE, "1 where streams are scored by a product with a vector", 0, rule=SHARE)


class Model(Spec):
    """A language model as counts of layers of each kind. A kind that it lacks is None and costs nothing."""

    hidden_size: Number = number(units.ONE, "model width", rule=WHOLE)
    layers: Number = number(units.ONE, "blocks, the unit of pipeline parallelism", rule=WHOLE, limits=sense.LAYERS)
    vocab_size: Number = number(units.ONE, "entries of the vocabulary", rule=WHOLE)
    tied_embeddings: Number = number(units.ONE, "1 if embedding and head are one matrix, else 0", 0, rule=SHARE)
    final_norms: Number = number(
        units.ONE, "norm vectors of model width outside the layers", 1, rule=COUNT, keyword=True
    )
    head_biases: Number = number(units.ONE, "elements of the head's bias", 0, rule=COUNT, keyword=True)
    other_parameters: Number = number(
        units.ONE,
        "parameters of other kinds, as of learned positions",
        0,
        rule=COUNT,
        keyword=True,
        limits=sense.of(units.ONE),
    )
    lm_head: Number = number(
        units.ONE,
        "1 with a language model head, 0 without, as in embedding models",
        None,
        rule=SHARE,
        keyword=True,
        absent=1.0,
    )
    bidirectional: Number = number(
        units.ONE,
        "1 where a token sees those after it too, as in encoders",
        None,
        rule=SHARE,
        keyword=True,
        absent=0.0,
    )
    mtp_layers: Number = number(units.ONE, "modules for multi-token prediction", 0, rule=COUNT, keyword=True)
    mtp_dense: Number = number(
        units.ONE, "1 where those modules have no experts though the model has", 0, rule=SHARE, keyword=True
    )
    mtp_local: Number = number(
        units.ONE, "1 where those modules have the windowed attention of the model", 0, rule=SHARE, keyword=True
    )
    attention: Attention | None = None
    local_attention: LocalAttention | None = None
    sparse_attention: SparseAttention | None = None
    latent_attention: LatentAttention | None = None
    compressed_attention: CompressedAttention | None = None
    ssm: SSM | None = None
    ssd: SSD | None = None
    delta_net: DeltaNet | None = None
    linear_attention: LinearAttention | None = None
    short_convolution: ShortConvolution | None = None
    ffn: FFN | None = None
    moe: MoE | None = None
    layer_embedding: LayerEmbedding | None = None
    residual_streams: ResidualStreams | None = None
    projections: tuple[Projection, ...] = ()
    label: Label = label()

    @property
    def name(self) -> str:
        """Name of the model, for people."""
        return self.label.text

    @classmethod
    def from_hugging_face(cls, path_or_id: "str | os.PathLike[str]") -> "Model":
        """Read a model from a Hugging Face `config.json`; `catalog.hugging_face.read` has the details.

        Args:
            path_or_id: the file, a folder with one, or a hub id.

        Raises:
            ValueError: the file cannot be read, or the architecture is not known or not expressible.

        Example:
            `gz.Model.from_hugging_face("Qwen3-8B/config.json")`
        """
        return _READERS["hugging_face"](path_or_id)


_READERS: dict[str, Callable[[Any], Model]] = {}


def reads_configs(function: Callable[[Any], Model]) -> Callable[[Any], Model]:
    """Make a function of the catalogue, which stands above the specs, what `Model.from_hugging_face` calls."""
    _READERS["hugging_face"] = function
    return function
