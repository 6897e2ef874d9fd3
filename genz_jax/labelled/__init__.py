"""Labelled: what a person gives as a case with named axes, and arrays as xarray Datasets with names and units.

In: names, specs, lists, axes. Out: a case of arrays, and Datasets. It alone imports xarray, and never computes figures.
"""
