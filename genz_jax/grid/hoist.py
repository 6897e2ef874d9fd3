"""Hoist: what a function computes without its argument, computed once for all arguments."""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun


def hoisted(function: Callable[[Any], Any], like: Any) -> Callable[[Any], Any]:
    """The function of the same argument whose operations that do not depend on it have been done already.

    The counts of operators do not depend on a platform, but a loop over platforms would trace, compile and compute
    them in its body. The function is traced once; what is called in the loop is the part of the trace that depends on
    the argument.

    Args:
        function: from a tree of arrays to a tree of arrays.
        like: shapes and types of the argument.

    Returns:
        The function, for arguments of those shapes and types.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(like)
    jaxpr, structure = closed.jaxpr, jax.tree.structure(shapes)

    def variables(atoms: Any) -> list[Any]:
        return [atom for atom in atoms if not isinstance(atom, Literal)]

    live, kept = set(variables(jaxpr.outvars)), []
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or live & set(eqn.outvars):
            live |= set(variables(eqn.invars))
            kept.append(eqn)
    depends, early, late = set(jaxpr.invars), [], []
    for eqn in reversed(kept):
        if depends & set(variables(eqn.invars)):
            depends |= set(eqn.outvars)
            late.append(eqn)
        else:
            early.append(eqn)
    used = [atom for eqn in late for atom in variables(eqn.invars)] + variables(jaxpr.outvars)
    made = {var for eqn in early for var in eqn.outvars}
    needed = [var for var in dict.fromkeys(used) if var in made]
    bare = jaxpr.debug_info._replace(arg_names=None, result_paths=None)
    first = jaxpr.replace(invars=[], outvars=needed, eqns=early, debug_info=bare)
    second = jaxpr.replace(constvars=[*jaxpr.constvars, *needed], eqns=late, debug_info=bare)
    known = [*closed.consts, *jaxpr_as_fun(ClosedJaxpr(first, closed.consts))()]
    remaining = jaxpr_as_fun(ClosedJaxpr(second, known))

    def rest(argument: Any) -> Any:
        return jax.tree.unflatten(structure, remaining(*jax.tree.leaves(argument)))

    return rest
