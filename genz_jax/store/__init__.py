"""Store: sweeps that are larger than memory, written region by region so that an interrupted one resumes.

In: a case with axes and chunks. Out: a Zarr store or dask arrays. It never knows how a figure is computed.
"""
