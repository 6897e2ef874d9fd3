"""Require: the least or greatest value of a number with which a service meets its objective.

In: a case and limits. Out: a Dataset of the values. It never knows what an operator is.
"""
