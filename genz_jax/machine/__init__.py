"""Machine: how long work takes on a platform, and what that costs in energy and money.

In: the work of a pass and a platform. Out: `Totals` of times. It never knows a model.
"""
