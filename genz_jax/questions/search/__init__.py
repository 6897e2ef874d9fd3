"""Search: the best deployments of a model among all that can run.

In: a model, platforms, limits. Out: ranked deployments. It never computes a figure itself.
"""
