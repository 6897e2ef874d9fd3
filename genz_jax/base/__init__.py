"""Base: units, numbers with axes, fields of specs, formats, files; what every folder above stands on.

In: text and numbers of people. Out: checked numbers in base units. It never knows models or machines.
"""
