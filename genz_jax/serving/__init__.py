"""Serving: what users of a service feel, from the times of forward passes to TTFT, TPOT and memory.

In: specs of arrays. Out: results of arrays. It never knows names, labels or how many points there are.
"""
