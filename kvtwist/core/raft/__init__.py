"""Raft: one replica of one group, as a pure machine.

What goes in: time (`Raft.tick`), messages of the other replicas (`Raft.step`), what users want
(`Raft.propose`, `Raft.read_index`, ...), what the caller has done (`Raft.persisted`,
`Raft.applied`). What comes out: `Ready` values, which say what to do. Nothing in here waits, draws
a random number of its own, looks at a clock or writes anywhere: the same calls give the same
`Ready`s.

**What the caller owes.** After anything that goes in, ask `Raft.has_ready`, and if so take
`Raft.ready`, and

1. send ``messages`` at once. That needs no thought: the replica holds back each message until what
   it says is on disk, so that votes and acknowledgements leave only after their sync, while a
   leader's appends leave before its own (dissertation, 10.2.1).
2. persist ``snapshot``, ``hard_state`` and ``entries``, in this order, in one atomic write, synced
   if ``must_sync``; then call `Raft.persisted` with its ``number``. Ready values are persisted in
   their order; others may be taken, and their messages sent, while a write is under way. The
   numbers may be acknowledged one by one, or the last one for several; so one with nothing to
   persist need not be, and must not be before those that come before it. If a write fails, the
   replica must not be used again.
3. apply ``committed``, in order (after the ``snapshot``, if there is one), then call
   `Raft.applied`. Applying is a function of the entries alone (R17).
4. answer ``reads``, each once its index is applied; fail ``reads_lost``.
5. make a snapshot for each of ``snapshots_wanted`` and pass it to `Raft.send_snapshot`; say how it
   went with `Raft.snapshot_sent`.

Reads that wait are not counted here: how many may is the caller's to bound, as is how long. With
leases (`Settings.lease_reads`), all time that has passed is to be ticked before anything else goes
in: a process that was frozen would else answer by a lease that is long over.

A proposal's fate is told by its place: when the entry that is applied at its index has the term
that it was proposed in, it is the proposal; when it has another one, the proposal is lost.

Names are the papers': see `kvtwist.core.raft.messages`. The parts, from the bottom up: `quorum`,
`configuration`, `log`, `messages`, `progress`; `state` and what is done to it: `replication`,
`reads`, `elections`, `sense`, `follower`, `candidate`, `leader`; `raft` is the whole.
"""

from kvtwist.core.raft.configuration import (
    AddLearner,
    Change,
    Configuration,
    Demote,
    Promote,
    Remove,
)
from kvtwist.core.raft.log import Entry, EntryKind
from kvtwist.core.raft.messages import (
    HardState,
    Message,
    ReadState,
    Ready,
    Restored,
    Snapshot,
)
from kvtwist.core.raft.raft import Raft
from kvtwist.core.raft.sense import Senseless
from kvtwist.core.raft.settings import Settings
from kvtwist.core.raft.state import Dropped, Proposed, Reason, Role

__all__ = [
    "AddLearner",
    "Change",
    "Configuration",
    "Demote",
    "Dropped",
    "Entry",
    "EntryKind",
    "HardState",
    "Message",
    "Promote",
    "Proposed",
    "Raft",
    "ReadState",
    "Ready",
    "Reason",
    "Remove",
    "Restored",
    "Role",
    "Senseless",
    "Settings",
    "Snapshot",
]
