"""Asks the invariants, each where it belongs, and keeps the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from kvtwist.core.raft import Entry, Raft, Ready, Role, Snapshot
from kvtwist.core.raft.messages import AppendRequest
from tests.sim.invariants import applying, messages, readys, states
from tests.sim.invariants.registry import PLACES, Violation, ask
from tests.sim.ledger import Ledger, View
from tests.sim.machine import Answer
from tests.sim.member import Member
from tests.sim.trace import Trace

__all__ = ["Inspector", "applying", "messages", "readys", "states"]


class Inspector:
    """Looks on while members work.

    :param on_failed_disk: what becomes of a member whose disk has failed.
    :param on_commit: is told of every entry that comes to be committed.
    :raises Violation: from every method, when an invariant does not hold.
    :ivar counts: what has happened.
    """

    def __init__(
        self,
        ledger: Ledger,
        trace: Trace,
        on_failed_disk: Callable[[Member], None],
        on_commit: Callable[[Entry], None],
    ) -> None:
        self.ledger = ledger
        self.counts: Counter[str] = Counter()
        self._trace = trace
        self._on_failed_disk = on_failed_disk
        self._on_commit = on_commit

    # -- what members tell --------------------------------------------------------------------

    def started(self, member: Member) -> None:
        """It has started, perhaps again."""
        view = self.ledger.views.get(member.replica)
        if view is None:
            view = self.ledger.views[member.replica] = View(member)
        else:
            view.begin()
        raft = member.raft
        assert raft is not None
        self._trace.add("start", member.replica, member.life, raft.last_index, raft.configuration)
        ask(PLACES["Started"], self.ledger, view)

    def took(self, member: Member, ready: Ready) -> None:
        """It has taken a Ready, and done nothing of it yet."""
        ledger, view, raft = self.ledger, self.ledger.views[member.replica], member.raft
        assert raft is not None
        if raft.role is Role.LEADER:
            self._leads(view, raft)
        if raft.commit_index > ledger.commit_index:
            self._commits(view, raft)
        for part in readys.parts(ready):
            ask(PLACES[part], ledger, view, ready)
        for entry in ready.entries:
            if ledger.leaders.get(entry.term) == raft.replica:
                # Perhaps it has stepped down meanwhile.
                log = ledger.leader_logs.get(entry.term)
                if log is not None and entry.index == len(log):
                    log.append(entry.term)
        for message in ready.messages:
            ask(PLACES["Message"], ledger, view, message)
            checks = PLACES.get(type(message).__name__)
            if checks is not None:
                ask(checks, ledger, view, message)
            if type(message) is AppendRequest:
                view.has_sent_entries = True
        self._note(view, raft, ready)

    def _note(self, view: View, raft: Raft, ready: Ready) -> None:
        view.number = ready.number
        snapshot = ready.snapshot
        if snapshot is not None:
            view.configurations = [(snapshot.index, snapshot.configuration)]
            view.emitted_index = view.handed_index = snapshot.index
        if ready.entries:
            view.take_entries(ready.entries)
            view.emitted_index = ready.entries[-1].index
        view.emitted_leading = raft.term if raft.role is Role.LEADER else 0
        if ready.committed:
            view.handed_index = ready.committed[-1].index

    def stepped(self, member: Member, took: bool) -> None:
        """It has done everything that there was to be done; whether that was anything."""
        ledger, view, raft = self.ledger, self.ledger.views[member.replica], member.raft
        assert raft is not None
        role, commit = raft.role, raft.commit_index
        seen = (raft.term, raft.vote, role, commit, raft.last_index, member.machine.applied)
        changed = seen != view.seen
        if not took and not changed:
            return
        if commit > ledger.commit_index:
            self._commits(view, raft)
        if role is Role.LEADER:
            # Most of what a leader does is heartbeats, with which nothing else changes.
            if changed or view.has_sent_entries:
                view.has_sent_entries = False
                ask(PLACES["Leader"], ledger, view, raft)
            if raft.is_quiescent:
                ask(PLACES["Quiescent"], ledger, view, raft)
                if not view.is_silent:
                    self._trace.add("silent", member.replica, raft.term, raft.last_index)
            view.is_silent = raft.is_quiescent
        if changed:
            view.seen = seen
            self._changed(view, raft)

    def _changed(self, view: View, raft: Raft) -> None:
        ledger, member, role = self.ledger, view.member, raft.role
        ask(PLACES["Change"], ledger, view, raft)
        if role is Role.CANDIDATE or role is Role.PRE_CANDIDATE:
            ask(PLACES["Candidate"], ledger, view, raft)
        if role is not view.role:
            self._trace.add(
                role.value, member.replica, raft.term, raft.last_index, raft.configuration
            )
            self.counts[role.value] += 1
        view.term, view.vote, view.role = raft.term, raft.vote, role
        view.commit, view.applied = raft.commit_index, member.machine.applied

    def _leads(self, view: View, raft: Raft) -> None:
        """It leads: since now, perhaps."""
        ledger, term = self.ledger, raft.term
        if view.leading_term == term:
            return
        ask(PLACES["Leader"], ledger, view, raft)
        log = raft.log
        if term not in ledger.leader_logs:
            terms = [entry.term for entry in ledger.committed[: log.compacted_index + 1]]
            terms.extend(entry.term for entry in log.entries(log.first_index, log.last_index))
            ledger.leader_logs[term] = terms
        view.leading_term = term
        view.match = {}

    def _commits(self, view: View, raft: Raft) -> None:
        """It knows more to be committed than anybody did."""
        ledger = self.ledger
        ask(PLACES["Commit"], ledger, view, raft)
        term = raft.log.term_at(raft.commit_index) or 0
        for entry in raft.log.entries(ledger.commit_index + 1, raft.commit_index):
            ledger.commit(entry, term)
            self._on_commit(entry)
            for leader, other in ledger.views.items():
                their = other.member.raft
                if their is not None and their.role is Role.LEADER and their.term > term:
                    _has(leader, their, entry)

    def synced(self, member: Member) -> None:
        """More of what it has written is durable."""
        self._trace.add("synced", member.replica, member.disk.durable.last_index)

    def applied(self, member: Member, entry: Entry, answer: Answer | None) -> None:
        """Its state machine has applied an entry."""
        ask(PLACES["Apply"], self.ledger, self.ledger.views[member.replica], entry, answer)
        self._trace.add("apply", member.replica, entry.index, entry.term, answer)

    def described(self, member: Member, snapshot: Snapshot) -> None:
        """It has made a snapshot."""
        ask(PLACES["Described"], self.ledger, self.ledger.views[member.replica], snapshot)
        self.counts["snapshot made"] += 1

    def installed(self, member: Member, snapshot: Snapshot) -> None:
        """It has taken over a snapshot."""
        self._trace.add("install", member.replica, snapshot.index, snapshot.term)
        ask(PLACES["Installed"], self.ledger, self.ledger.views[member.replica], snapshot)
        self.counts["snapshot installed"] += 1

    def asked(self, member: Member, context: bytes) -> None:
        """A read has been asked for."""
        self.ledger.asked[context] = self.ledger.commit_index
        self._trace.add("read", member.replica, self.ledger.commit_index)

    def failed(self, member: Member) -> None:
        """Its disk has failed, and so has the member."""
        self._on_failed_disk(member)


def _has(leader: int, raft: Raft, entry: Entry) -> None:
    """Leader completeness, for an entry that is committed while *leader* leads already."""
    if entry.index > raft.log.compacted_index and not raft.log.has(entry.index, entry.term):
        wrong = f"{entry} is committed, but {leader} leads in term {raft.term} without it"
        raise Violation("leader_completeness", wrong)
