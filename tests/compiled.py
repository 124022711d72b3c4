"""The tests that a compiled kvtwist can be put to: what goes in and what comes out.

Left out are those of modules that put mistakes or doubles in the place of parts of ours: what is
compiled does not let them. They say of the sources what these here say of the compiled modules.

    make compiled test-compiled
"""

from __future__ import annotations

import os
import sys

from kvtwist import is_compiled

MODULES = {
    "core": "address founding groups health meta partition placement ring topology",
    "core.raft": "any_group any_message bounds configuration log log_writes paper_elections "
    "paper_membership paper_pre_vote paper_reads paper_replication paper_snapshots paper_transfer "
    "pitfalls pitfalls_of_groups progress quiescence quorum sense settings sparing "
    "stalled_disk",
    "core.state": "lone_put ordered",
    "storage": "backup bitflips check crashes frames logs marks memory recent rocks snapshots "
    "states store worker",
    "wire": "applied arguments boxes codec commands connection deadlines descriptions failures "
    "flow fragments frequent greeting large link once outbox raft short_way straight tell turn "
    "unsent values",
    "node": "backups batches behind budget description expiry founding heartbeats leaders limits "
    "meta operations peers post restoring routing short_way stopping",
    "client": "many once results sessions",
    "cli": "commands replicated_status show status",
    "sim": "simulation",
    "processes": "attacks chaos quick_start",
}


def main() -> None:
    """Run them, in the place of this process."""
    if not is_compiled():
        sys.exit(f"the kvtwist of {sys.executable} is not compiled")
    names = [
        f"tests.{folder}.test_{name}" for folder, names in MODULES.items() for name in names.split()
    ]
    os.execv(sys.executable, (sys.executable, "-m", "twisted.trial", *names))


if __name__ == "__main__":
    main()
