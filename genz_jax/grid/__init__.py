"""Grid: one function at very many points, in blocks of bounded memory, on all local devices.

In: a case whose numbers are arrays, and a function of it. Out: arrays, block by block. It never knows what they mean.
"""
