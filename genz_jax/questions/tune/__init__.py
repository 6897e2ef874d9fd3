"""Tune: a platform for a goal under limits, by gradients from many starts.

In: free numbers, a goal, limits. Out: a design and what holds it. It never knows what an operator is.
"""
