"""Operators: products, element-wise work and collectives, from sizes to FLOPs and bytes.

In: sizes and formats. Out: operators. It never knows which layer they belong to.
"""
