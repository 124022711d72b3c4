"""Fuzz targets: run by hand, or by ``make fuzz``; not part of the test suite."""
