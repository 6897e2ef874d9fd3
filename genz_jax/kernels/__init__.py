"""Kernels: how long one run of a kernel takes, from its sizes and a few constants that were fitted to measurements.

In: peak rates, sizes, constants. Out: seconds of one run. They never know a model, nor which layers run them.
"""

from genz_jax.kernels.form import Form as Form, Job as Job, Overlap as Overlap
from genz_jax.kernels.kernels import KERNELS as KERNELS, Kernels as Kernels
