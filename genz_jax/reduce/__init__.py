"""Reduce: the best points, fronts, fractions and quantiles of a grid that is never held as a whole.

In: blocks of a grid. Out: the few points or numbers that are asked for. It never writes files.
"""
