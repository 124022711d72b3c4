"""Whole nodes and their clients in one process and in virtual time, out of one number."""
