"""Bugs in what drives the replica, and in the state machine."""

from __future__ import annotations

from typing import Any

from kvtwist.core.raft import Ready
from kvtwist.core.raft.raft import Raft
from kvtwist.core.state.contents import Contents
from kvtwist.core.state.sessions import Session, Sessions
from tests.sim.disk import Image, Write
from tests.sim.machine import Machine
from tests.sim.member import Member
from tests.sim.mutants.planting import Patch, instead, mutant
from tests.sim.watch import Lost


@mutant
def no_fsync(patch: Patch) -> None:
    """Writes are called durable as soon as they are in the cache (R1)."""

    def _persist(self: Member, raft: Raft, ready: Ready) -> None:
        self._last_number = ready.number
        if ready.hard_state or ready.snapshot or ready.entries:
            write = Write(ready.hard_state, ready.snapshot, ready.entries)
            self.disk.write(write)
        if ready.snapshot is not None:
            self._to_apply.clear()
            self._installing = ready.snapshot
        if ready.must_sync:
            self.disk.sync(lambda is_well: None)
        raft.persisted(ready.number)

    patch.replace(Member, "_persist", instead(_persist))


@mutant
def failed_sync_ignored(patch: Patch) -> None:
    """A member goes on after a failed sync (S1)."""

    def made(before: Any) -> Any:
        def _synced(self: Member, life: int, number: int, is_well: bool) -> None:
            before(self, life, number, True)

        return _synced

    patch.replace(Member, "_synced", made)


@mutant
def acknowledged_out_of_order(patch: Patch) -> None:
    """A Ready that needs no sync is acknowledged at once, and those before it with it."""

    def made(before: Any) -> Any:
        def _persist(self: Member, raft: Raft, ready: Ready) -> None:
            before(self, raft, ready)
            if not ready.must_sync:
                raft.persisted(ready.number)

        return _persist

    patch.replace(Member, "_persist", made)


@mutant
def applied_twice_after_restart(patch: Patch) -> None:
    """The state machine's place is not written together with what it has applied."""

    def made(before: Any) -> Any:
        def restored(self: Image, applied: int) -> Any:
            return before(self, max(self.compacted_index, applied - 2))

        return restored

    patch.replace(Image, "restored", made)


@mutant
def snapshot_of_the_log_only(patch: Patch) -> None:
    """The log is switched to a snapshot, but the state on the disk is the old one (R13)."""

    def made(before: Any) -> Any:
        def _install(self: Image, snapshot: Any) -> None:
            state = self.state
            before(self, snapshot)
            self.state = state

        return _install

    patch.replace(Image, "_install", made)


@mutant
def snapshot_under_another_index(patch: Patch) -> None:
    """A snapshot of the state as it is now is sent under an older index."""

    def made(before: Any) -> Any:
        def describe(self: Raft, index: int, data: bytes = b"") -> Any:
            return before(self, max(self.log.compacted_index, index - 1), data)

        return describe

    patch.replace(Raft, "describe", made)


@mutant
def answered_by_index_alone(patch: Patch) -> None:
    """A proposal counts as done when anything is applied at its index."""

    def _answer_proposal(self: Member, entry: Any, answer: Any) -> None:
        _, reply = self._proposals.pop(entry.index, (0, None))
        if reply is not None:
            reply(answer if answer is not None else Lost.NOT_DONE)

    patch.replace(Member, "_answer_proposal", instead(_answer_proposal))


@mutant
def read_before_applied(patch: Patch) -> None:
    """A read is answered when it is confirmed, applied or not (R5)."""

    def _answer_reads(self: Member) -> None:
        due, self._due = self._due, []
        for state in due:
            key, reply = self._reads.pop(state.context)
            reply(self.machine.read(key))

    patch.replace(Member, "_answer_reads", instead(_answer_reads))


@mutant
def sessions_left_out_of_snapshots(patch: Patch) -> None:
    """A snapshot has the data, but not what makes retries safe (R13, C2)."""

    def made(before: Any) -> Any:
        return lambda self: before(self)._replace(sessions=[])

    patch.replace(Contents, "freeze", made)


@mutant
def retry_applied_again(patch: Patch) -> None:
    """A write that is repeated takes place again (C2)."""

    def made(before: Any) -> Any:
        def admit(self: Sessions, id: int, seq: int, lowest: int, now_ms: int) -> Any:
            admitted = before(self, id, seq, lowest, now_ms)
            session = self._sessions.get(id)
            is_kept = session is not None and admitted is session.answers.get(seq)
            return session if is_kept and isinstance(session, Session) else admitted

        return admit

    patch.replace(Sessions, "admit", made)


@mutant
def nondeterministic_apply(patch: Patch) -> None:
    """What an entry does depends on what else this process has done (R17)."""
    calls = [0]

    def made(before: Any) -> Any:
        def apply(self: Machine, entry: Any) -> Any:
            calls[0] += 1
            answer = before(self, entry)
            if answer is not None and calls[0] % 7 == 0:
                self.state._contents.revision += 1
            return answer

        return apply

    patch.replace(Machine, "apply", made)
