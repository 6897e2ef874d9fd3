"""Questions: what a person asks, one verb per file or folder.

In: names, specs, axes. Out: results and Datasets. A question never knows another but for the shared search of a root.
"""
