"""Compare all scenarios with what happens, or write them anew."""

from __future__ import annotations

import argparse
import sys
from difflib import unified_diff

from tests.core.raft.scenarios import names, path_of, replayed


def main() -> int:
    """The exit status: 1 if one is not as it was."""
    parser = argparse.ArgumentParser(prog="python -m tests.core.raft.scenarios")
    parser.add_argument("--rewrite", action="store_true", help="write the traces anew")
    parser.add_argument("names", nargs="*", help="of scenarios; all, if none is given")
    options = parser.parse_args()
    changed = 0
    for name in options.names or names():
        text = path_of(name).read_text()
        now = replayed(text)
        if now == text:
            continue
        changed += 1
        if options.rewrite:
            path_of(name).write_text(now)
        diff = unified_diff(text.splitlines(), now.splitlines(), name, "now", lineterm="")
        print("\n".join(diff))
    return 0 if options.rewrite else min(changed, 1)


if __name__ == "__main__":
    sys.exit(main())
