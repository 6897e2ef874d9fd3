"""Energy of a stage from the time that each resource is busy."""

from genz_jax.base.fields import Number
from genz_jax.specs import Platform


def energy(latency: Number, compute: Number, memory: Number, network: Number, platform: Platform) -> Number:
    """Energy of one device, in J: E = P · (s·t + c·t_compute + m·t_memory + n·t_network).

    The power P of the device splits into a static share s and shares c, m, n drawn while the matrix units, the memory
    and the links are busy; arXiv 2406.01698 has 30, 40, 20 and 10 %. Busy times are at peak rates.
    """
    split = platform.power_split
    busy = split.compute * compute + split.memory * memory + split.network * network
    return platform.power * (split.static * latency + busy)
