"""The tests, arranged as the package is; `trial tests` and `pytest` both run them all."""
