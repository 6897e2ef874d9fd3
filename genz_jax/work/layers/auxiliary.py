"""Work beside attention and feed-forward layers: linear layers, embeddings of every layer, residual streams."""

from genz_jax.base.fields import Number
from genz_jax.specs import LayerEmbedding, Projection, ResidualStreams
from genz_jax.work.layers.registry import layer
from genz_jax.work.operators.elementwise import elementwise
from genz_jax.work.operators.operator import Operator
from genz_jax.work.operators.products import gemm
from genz_jax.work.step import Deployment, Step, shard


@layer(Projection)
def projection_layer(name: str, part: Projection, hidden: Number, step: Step, deployment: Deployment) -> list[Operator]:
    """Operators of a linear layer that all tokens pass, `uses` times; every rank has it whole."""
    sizes = {"n": part.output_size, "k": part.input_size, "precision": deployment.precision}
    op = gemm(name, "ffn", batch=step.sequences, m=step.tokens, **sizes)
    # Parameters count once, however often a token passes.
    return [op.replace(repeats=part.uses, stored=op.stored / part.uses)]


@layer(LayerEmbedding, parameters="embedding")
def layer_embedding_layer(
    name: str, part: LayerEmbedding, hidden: Number, step: Step, deployment: Deployment
) -> list[Operator]:
    """Look up one row of a layer's embedding for every token; its table is split over the vocabulary.

    The linear layers around it are `Projection`s of the model.
    """
    precision = deployment.precision
    row = step.sequences * step.embedded * part.size
    rows = shard(part.vocab_size, deployment.ranks)
    return [
        Operator(
            f"{name}.gather",
            "vector",
            "embedding",
            input=row * precision.embedding,
            output=row * precision.activations,
            stored=rows * part.size * precision.embedding,
            sizes={"elements": row},
        )
    ]


@layer(ResidualStreams)
def residual_streams_layer(
    name: str, part: ResidualStreams, hidden: Number, step: Step, deployment: Deployment
) -> list[Operator]:
    """Mix n residual streams into m: 2·n·m·D FLOPs per token, and 2·n·D for scores where there are any.

    Bound by memory: n vectors in, m out, for each token. The linear layers that make the coefficients are
    `Projection`s of the model.
    """
    if not deployment.assumptions.vector_operators:
        return []
    return [
        elementwise(
            f"{name}.mix",
            elements=step.rows * hidden,
            reads=part.streams,
            writes=part.outputs,
            flops_per_element=2.0 * part.streams * (part.outputs + part.scores),
            precision=deployment.precision,
        )
    ]
