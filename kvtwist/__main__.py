"""``python -m kvtwist``: the same as ``twistd --nodaemon kvnode``."""

from __future__ import annotations

import sys


def main() -> None:
    """Start a node in the foreground."""
    from twisted.scripts.twistd import run

    sys.argv[:] = ["twistd", "--nodaemon", "kvnode", *sys.argv[1:]]
    run()


if __name__ == "__main__":
    main()
