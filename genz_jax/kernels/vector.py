"""Vector kernels: norms, activations, rotations, and the many small kernels of an MoE layer's routing."""

from genz_jax.base import arrays as xp
from genz_jax.base.fields import Number
from genz_jax.kernels.form import Form, Job, achieved, count, launch, seconds


class Stream(Form):
    """A kernel that passes over its tensors once: t = t₀ + max(bytes, from the cache or from memory, blocks·t_b).

    Whether the cache serves it is `Job.stream`'s, where the footprint is the share of the bytes that are distinct.
    """

    launch: Number = launch(0.0)
    memory_efficiency: Number = achieved("memory", 1.0)
    distinct: Number = count("distinct bytes of the tensors for each byte that is moved", 1.0)
    element_bytes: Number = count("bytes that it moves for each element; 0 for those of the formats", 0.0)
    block_time: Number = seconds("time of a block of threads, of which it starts one for each vector", 0.0)

    def seconds(self, job: Job) -> Number:
        own = self.element_bytes * job.sizes.get("elements", 0.0)
        bytes = xp.where(own > 0, own, job.bytes)
        moved = job.stream(bytes, bytes * self.distinct, self.memory_efficiency)
        if "vectors" in job.sizes:
            moved = xp.maximum(moved, self.block_time * job.sizes["vectors"])
        return self.launch + moved


class Routing(Form):
    """Routing of an MoE layer: scores to experts, gather of tokens, weighted sum of results.

    t = t₀ + passes·2·tokens·K·D bytes: the hidden vectors of the K copies of each token pass through memory so often.
    """

    launch: Number = launch(0.0)
    passes: Number = count("passes over the hidden vectors of all copies of the tokens", 0.0)
    memory_efficiency: Number = achieved("memory", 1.0)

    def seconds(self, job: Job) -> Number:
        copies = 2.0 * job.sizes["rows"] * job.sizes["top_k"] * job.sizes["hidden"]
        return self.launch + job.stream(self.passes * copies, copies, self.memory_efficiency)


class Transfer(Form):
    """A copy or a fill: t = t₀ + t_r·min(1, bytes/(P·32 KiB)) + bytes/(B·e_m), as more processors take part."""

    launch: Number = launch(0.0)
    ramp_time: Number = seconds("time until all processors take part", 0.0)
    memory_efficiency: Number = achieved("memory", 1.0)

    def seconds(self, job: Job) -> Number:
        ramp = self.ramp_time * xp.minimum(job.bytes / (job.processors * 2.0**15), 1.0)
        return self.launch + ramp + job.bytes * job.byte / self.memory_efficiency
