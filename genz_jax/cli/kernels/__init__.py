"""Commands about kernels: measure them, calibrate their constants, validate what they predict.

In: options. Out: tables, platform files, figures. They never compute a time of their own.
"""
