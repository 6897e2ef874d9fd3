"""Input embedding and language model head, both split over the vocabulary."""

from genz_jax.base.fields import Number
from genz_jax.specs import Model
from genz_jax.work.operators.collectives import all_gather, all_reduce
from genz_jax.work.operators.elementwise import elementwise
from genz_jax.work.operators.operator import Operator
from genz_jax.work.operators.products import gemm
from genz_jax.work.step import Deployment, Step, floor_div, shard


def embedding(model: Model, step: Step, deployment: Deployment) -> list[Operator]:
    """Operators of the input embedding: a gather of the rows it needs, or the published GEMM; all-reduce over T.

    The published analyser has no embedding in decode steps.
    """
    precision, ranks = deployment.precision, deployment.ranks
    gather = deployment.assumptions.gather_embedding
    if not gather and step.mode == "decode":
        return []
    elements: Number = step.sequences * step.embedded * model.hidden_size
    if gather:
        rows = shard(model.vocab_size, ranks)
        read = elementwise(
            "embedding",
            elements=elements,
            reads=1.0,
            writes=1.0,
            flops_per_element=0.0,
            precision=precision,
            component="embedding",
        )
        stored = (rows * model.hidden_size + model.other_parameters) * precision.embedding
        stored_as = {"other": model.other_parameters * precision.embedding}
        if step.mode == "encode":  # else the last norm is the head's
            stored_as["norms"] = model.final_norms * model.hidden_size * precision.weights
            stored = stored + stored_as["norms"]
        look_up = Operator(
            read.name,
            read.kind,
            read.component,
            kernel="embedding",
            input=elements * precision.embedding,
            output=read.output,
            stored=stored,
            stored_as=stored_as,
            sizes=read.sizes,
        )
    else:
        look_up = gemm(
            "embedding",
            "embedding",
            batch=step.sequences,
            m=step.embedded,
            n=model.hidden_size,
            k=floor_div(model.vocab_size, ranks),
            precision=precision,
            layers="embedding",
        )
    return [
        look_up,
        all_reduce(
            "embedding.all_reduce", "embedding_collectives", elements=elements, ranks=ranks, precision=precision
        ),
    ]


def head(model: Model, step: Step, deployment: Deployment) -> list[Operator]:
    """Operators of the language model head: logits of the sampled tokens (or of all), gathered over T.

    A head that shares the embedding's matrix stores nothing of its own, and reads it in the embedding's format.
    """
    precision, ranks, assumptions = deployment.precision, deployment.ranks, deployment.assumptions
    tokens = step.sampled if assumptions.last_token_head else step.tokens
    if assumptions.gather_embedding:
        columns = shard(model.vocab_size, ranks)
        stored = columns * model.hidden_size * (1.0 - model.tied_embeddings)
        norms = model.final_norms * model.hidden_size
        stored = (stored + model.head_biases + norms) * precision.weight_bytes("head")
        stored_as = {"norms": norms * precision.weight_bytes("head")}
    else:
        columns, stored, stored_as = floor_div(model.vocab_size, ranks), None, {}
    logits = gemm(
        "head",
        "head",
        batch=step.sequences,
        m=tokens,
        n=columns,
        k=model.hidden_size,
        precision=precision,
        layers="head",
        stored=stored,
    ).replace(stored_as=stored_as)
    if assumptions.gather_embedding and precision.head is not None:
        read = (precision.embedding - precision.head) * model.tied_embeddings + precision.head
        logits = logits.replace(weight=columns * model.hidden_size * read)
    gathered = all_gather(
        "head.all_gather",
        "embedding_collectives",
        elements=step.sequences * tokens * model.vocab_size,
        ranks=ranks,
        precision=precision,
    )
    if model.lm_head is None:
        return [logits, gathered]
    return [logits.times(model.lm_head), gathered.times(model.lm_head)]
