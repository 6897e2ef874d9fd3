"""Work: what must be done, as operators with their FLOPs, bytes and messages.

In: a model, a workload and how it is spread. Out: `Work`, a value of small arrays. It never knows a platform.
"""
