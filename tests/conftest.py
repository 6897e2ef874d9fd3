"""Configuration of JAX and Hypothesis, made before the package is imported."""

import os
import signal

import jax
from hypothesis import HealthCheck, settings

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_num_cpu_devices", 2)

_SLOW_START = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]  # the first example compiles
settings.register_profile("local", deadline=None, suppress_health_check=_SLOW_START)
settings.register_profile("ci", deadline=None, suppress_health_check=_SLOW_START, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

# A shell lets what it runs in the background ignore interrupts, and so would the processes that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
