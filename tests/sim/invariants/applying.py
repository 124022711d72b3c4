"""What state machines must keep to, and snapshots."""

from __future__ import annotations

from kvtwist.core.raft import Entry, Snapshot
from tests.sim.invariants.registry import holds
from tests.sim.ledger import Ledger, View
from tests.sim.machine import Answer


@holds("Apply")
def state_machine_safety(
    ledger: Ledger, view: View, entry: Entry, answer: Answer | None
) -> str | None:
    """Nobody applies another entry at an index (figure 3: State Machine Safety)."""
    if entry.index > ledger.commit_index:
        return f"{entry} is applied, but only {ledger.commit_index} entries are committed"
    if entry != ledger.committed[entry.index]:
        return f"{entry} is applied, but {ledger.committed[entry.index]} is committed"
    return None


@holds("Apply")
def same_answer_everywhere(
    ledger: Ledger, view: View, entry: Entry, answer: Answer | None
) -> str | None:
    """Applying is a function of the log (R17)."""
    known = ledger.answers.setdefault(entry.index, answer)
    return None if known == answer else f"{answer} to {entry}; another replica said {known}"


@holds("Apply")
def same_state_everywhere(
    ledger: Ledger, view: View, entry: Entry, answer: Answer | None
) -> str | None:
    """The same log makes the same state (figure 3: State Machine Safety; R17)."""
    if entry.index % 8:
        return None
    return _same_digest(ledger, view, entry.index)


def _same_digest(ledger: Ledger, view: View, index: int) -> str | None:
    digest = view.member.machine.digest()
    known = ledger.digests.setdefault(index, digest)
    return None if known == digest else f"replica {view.member.replica} differs at {index}"


@holds("Started")
def same_state_after_a_restart(ledger: Ledger, view: View) -> str | None:
    """What a disk brings back is what was applied (R13)."""
    index = view.member.machine.applied
    return _same_digest(ledger, view, index) if index in ledger.digests else None


@holds("Described")
def snapshot_is_applied(ledger: Ledger, view: View, snapshot: Snapshot) -> str | None:
    """A snapshot covers what is applied, and nothing else (paper, section 7; R13)."""
    applied = view.member.machine.applied
    if snapshot.index != applied:
        return f"a snapshot at {snapshot.index}, with the state at {applied}"
    if snapshot.configuration != ledger.configuration_at(applied):
        return f"{snapshot.configuration} at {applied}"
    return _same_digest(ledger, view, applied)


@holds("Installed")
def installed_is_the_state(ledger: Ledger, view: View, snapshot: Snapshot) -> str | None:
    """A snapshot brings everything: data, sessions, where it is (paper, section 7; R13)."""
    machine = view.member.machine
    if machine.applied != snapshot.index:
        return f"the state is at {machine.applied}, after a snapshot at {snapshot.index}"
    if snapshot.index not in ledger.digests:
        return f"nobody has made a snapshot at {snapshot.index}"
    return _same_digest(ledger, view, snapshot.index)
