"""Layers: the operators of each kind of layer of a model.

In: a part of a model and a forward pass. Out: operators. It never knows a platform.
"""
