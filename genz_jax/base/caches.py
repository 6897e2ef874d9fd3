"""Caches: compiled functions, of which those that were used last are kept."""

import collections
import ctypes
import functools
import gc
import sys
import threading
from collections.abc import Callable, Hashable
from typing import Any

import jax
from jax.core import Tracer

SHAPES = 3
"""Shapes of one function that are kept, one less of one that is compiled quickly, which takes more memory. Each has 3
to 30 MB; one call needs two at most."""

MOST = 48
"""Compiled functions of the whole package that are kept."""

QUESTIONS = 64
"""Functions of one kind that are kept, such as one for each question that is asked."""

_QUICK = {"xla_backend_optimization_level": 0, "xla_disable_hlo_passes": "fusion"}
"""Of a request's 8,000 operations on one point, 3.1 s become 1.5 s, and a call's 0.56 ms 0.44 ms, on 2 cores; on 2^15
points a call's 1.4 ms become 13 ms."""

_LOCK = threading.Lock()
_KEPT: collections.OrderedDict[tuple["Compiled", Hashable], Any] = collections.OrderedDict()
"""What is compiled, by function and shapes; what was used last is last."""


class Compiled:
    """`jax.jit` of a function, but that what it holds is bounded."""

    def __init__(self, function: Callable[..., Any], quick: bool = False, **options: Any):
        """Wrap a function.

        Args:
            function: what is compiled.
            quick: compile in less than half the time, for few points, which a call then takes some µs more for each.
            options: those of `jax.jit`.
        """
        self._function, self._quick, self._options = function, quick, options
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The result; of given numbers a constant, also while a function of somebody else is traced."""
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((args, kwargs))):
            return self._function(*args, **kwargs)
        with jax.ensure_compile_time_eval():
            return self.at(*args, **kwargs)(*args, **kwargs)

    def eval_shape(self, *args: Any) -> Any:
        """Shapes and types of the result, of which the trace is kept for the call."""
        with jax.ensure_compile_time_eval():  # as the call is made, else it would be traced anew
            return self.at(*args).eval_shape(*args)

    def after(self, first: Callable[[Any], Any]) -> "Compiled":
        """The function of what `first` makes of its argument, compiled as this one is."""
        return Compiled(lambda given: self._function(first(given)), self._quick, **self._options)

    def at(self, *args: Any, **kwargs: Any) -> Any:
        """The compiled function for arguments of these shapes, for many calls that need not look it up."""
        leaves, structure = jax.tree.flatten((args, kwargs))
        entry = self, (structure, *map(_shape, leaves))
        with _LOCK:
            found = _KEPT.get(entry)
            if found is not None:
                _KEPT.move_to_end(entry)
                return found
            found = _KEPT[entry] = self._new()
            full = self._drop()
        if full:
            release()
        return found

    def _new(self) -> Any:
        # JAX keeps what it traces and compiles as long as the function is there: each of them has one of its own.
        @functools.wraps(self._function)
        def own(*args: Any, **kwargs: Any) -> Any:
            return self._function(*args, **kwargs)

        quick: dict[str, Any] = {"compiler_options": _QUICK} if self._quick and jax.default_backend() == "cpu" else {}
        return jax.jit(own, **self._options, **quick)

    def _drop(self) -> bool:
        """Forget what was used least recently, if there is too much; whether there was."""
        own = [entry for entry in _KEPT if entry[0] is self]
        most = SHAPES - self._quick
        for entry in own[:-most]:
            del _KEPT[entry]
        over = len(_KEPT) > MOST
        if over:
            _KEPT.popitem(last=False)
        return over or len(own) > most

    @property
    def shapes(self) -> int:
        """Number of shapes for which the function is compiled now; those only traced for their results do not count."""
        return sum(found._cache_size() > 0 for entry, found in _KEPT.items() if entry[0] is self)


def _shape(leaf: Any) -> Hashable:
    """What of an argument the compiled function depends on; a static one stands for itself."""
    if hasattr(leaf, "shape"):
        return leaf.shape
    return None if isinstance(leaf, int | float | complex) else leaf


def release() -> None:
    """Give memory that is no longer used back to the system."""
    gc.collect()
    if sys.platform == "linux":
        try:
            ctypes.CDLL(None).malloc_trim(0)
        except (AttributeError, OSError):  # another library of C
            pass


def clear_caches() -> None:
    """Forget all that this package has compiled and read, so that its memory is free again.

    What is kept is bounded, about a gigabyte at most; later calls compile anew, in seconds each. JAX's own functions
    keep some too, which `jax.clear_caches()` drops, with all that other packages have compiled.

    Example:
        >>> import genz_jax as gz
        >>> gz.clear_caches()
    """
    with _LOCK:
        _KEPT.clear()
    for name, module in list(sys.modules.items()):
        if name == "genz_jax" or name.startswith("genz_jax."):
            for value in list(vars(module).values()):
                clear = getattr(value, "cache_clear", None)
                if callable(clear):
                    clear()
    release()
