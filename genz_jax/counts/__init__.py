"""Counts: parameters and FLOPs of a model, as people ask for them.

In: a model and a workload. Out: sums over the operators that `work` makes. It never knows a platform.
"""
