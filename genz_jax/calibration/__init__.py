"""Calibration: constants of kernels from measured tables, with their errors and intervals, and predictions of tables.

In: tables, a platform. Out: a `Calibration` and its file. It never knows how a table was measured.
"""

from genz_jax.calibration.calibrate import calibrate as calibrate
from genz_jax.calibration.result import Calibration as Calibration
from genz_jax.calibration.validate import Validation as Validation, validate as validate
