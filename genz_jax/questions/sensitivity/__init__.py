"""Sensitivity: by how much each number of the specs changes a figure.

In: a case and figures. Out: elasticities and slopes. It never knows how a figure is computed.
"""
