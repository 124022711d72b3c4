"""``kvcli``, the command line. The only package that prints.

Nothing here imports Twisted before a command runs: ``kvcli --help`` and shell completion are quick.
"""
