"""Bugs of whole nodes, that others have had, or might have; the simulator must find each (X4).

Those of the Raft core by itself are in `tests.sim.mutants`; these are in what is built around it,
or could only be seen there. ``python -m tests.simnodes.hunting`` shows which seeds find which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, succeed

from kvtwist.client.sessions import Ticket
from kvtwist.core.raft import ReadState, Ready, reads
from kvtwist.core.raft.raft import Raft
from kvtwist.core.raft.state import Leading, State
from kvtwist.core.state.commands import LonePut, OpenSession, Write
from kvtwist.core.state.machine import StateMachine
from kvtwist.core.state.sessions import Session, Sessions
from kvtwist.errors import KvtwistError, SessionRefused, Unavailable
from kvtwist.node import router
from kvtwist.node.kept import Kept
from kvtwist.node.post import Post
from kvtwist.node.proposals import Proposals
from kvtwist.node.reads import Reads
from kvtwist.node.replica import Replica
from kvtwist.node.replicas import Replicas
from kvtwist.node.router import Router
from kvtwist.storage import logs
from kvtwist.storage.engine import Batch
from kvtwist.storage.recent import Recent
from kvtwist.storage.records import StoredRecords
from kvtwist.storage.states import StoredState
from kvtwist.storage.store import Store
from kvtwist.wire.raft import read_messages
from tests.sim.mutants.planting import Mutant, Patch, instead

MUTANTS: dict[str, Mutant] = {}
"""All of them, by name."""


def mutant(plant: Callable[[Patch], None]) -> Callable[[Patch], None]:
    """Add the bug that the function plants; its docstring says what it is."""
    name = plant.__name__
    assert plant.__doc__ and name not in MUTANTS
    MUTANTS[name] = Mutant(name, " ".join(plant.__doc__.split()), plant)
    return plant


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """While inside, the code has that bug; ``None``: it is as it is."""
    patch = Patch()
    try:
        if name is not None:
            MUTANTS[name].plant(patch)
        yield
    finally:
        patch.undo()


# -- the order of safety ------------------------------------------------------------------------


@mutant
def read_answered_before_applied(patch: Patch) -> None:
    """A read is answered when it is confirmed, whatever is applied here (R5)."""

    def made(before: Any) -> Any:
        def confirm(self: Reads, read: Any) -> None:
            before(self, ReadState(read.context, 0))

        return confirm

    patch.replace(Reads, "confirm", made)


@mutant
def told_before_synced(patch: Patch) -> None:
    """What is on its way to the disk counts as there: answers, acknowledgements, votes (R1)."""

    def made(before: Any) -> Any:
        def write(self: Store, batch: Batch, **how: Any) -> Deferred[None]:
            before(self, batch, **how).addErrback(lambda failure: None)
            return succeed(None)

        return write

    patch.replace(Store, "write", made)


@mutant
def never_synced(patch: Patch) -> None:
    """Batches are written, and nobody asks for a sync (R1)."""

    def made(before: Any) -> Any:
        def write(self: Store, batch: Batch, **how: Any) -> Deferred[None]:
            done: Deferred[None] = before(self, batch, **how | {"sync": False})
            return done

        return write

    patch.replace(Store, "write", made)


@mutant
def appends_acknowledged_before_sync(patch: Patch) -> None:
    """A follower acknowledges entries that are on their way to its disk (R2)."""
    patch.replace(State, "send_when_written", instead(State.send_when_voted))


@mutant
def votes_released_before_sync(patch: Patch) -> None:
    """Votes leave while they are on their way to the disk (R1)."""
    patch.replace(State, "send_when_voted", instead(State.send))


@mutant
def failed_sync_ignored(patch: Patch) -> None:
    """A node goes on after a failed sync (S1)."""

    def made(before: Any) -> Any:
        def _committed(self: Store, result: Any, waiting: Any) -> None:
            before(self, None, waiting)

        return _committed

    patch.replace(Store, "_committed", made)


@mutant
def memory_outlives_a_full_disk(patch: Patch) -> None:
    """With room again, replicas go on as they were in memory, with what was never written (S2)."""
    patch.replace(Replicas, "_start_anew", instead(lambda self: None))


# -- what stands on the disk --------------------------------------------------------------------


@mutant
def vote_forgotten(patch: Patch) -> None:
    """A restarted node knows its term, and not whom it has voted for in it (R1)."""

    def made(before: Any) -> Any:
        def load(*where: Any, **how: Any) -> Any:
            restored = before(*where, **how)
            if restored is None:
                return None
            hard = type(restored.hard_state)(restored.hard_state.term, 0, 0)
            return type(restored)(
                restored.configuration,
                hard,
                restored.compacted_index,
                restored.compacted_term,
                restored.entries,
                restored.applied,
            )

        return load

    patch.replace(logs, "load", made)


@mutant
def applied_index_in_another_batch(patch: Patch) -> None:
    """The index of the last applied entry is written a batch before what the entry has changed."""

    def made(before: Any) -> Any:
        def take_batch(self: StoredState) -> tuple[Batch, int]:
            batch, number = before(self)
            now = Batch()
            late = self.__dict__.setdefault("late", Batch())
            now.extend(late)
            now.operations.append(batch.operations.pop())  # the header comes last
            self.__dict__["late"] = batch
            return now, number

        return take_batch

    patch.replace(StoredState, "take_batch", made)


@mutant
def state_ahead_of_its_log(patch: Patch) -> None:
    """Entries are written a batch later than they should be, also than what they have changed."""

    def made(before: Any) -> Any:
        def take_entries(self: Kept, ready: Ready, batch: Batch) -> None:
            late = self.__dict__.setdefault("late", Batch())
            batch.extend(late)
            self.__dict__["late"] = now = Batch()
            before(self, ready, now)

        return take_entries

    patch.replace(Kept, "take_entries", made)


@mutant
def fetched_is_never_out_of_date(patch: Patch) -> None:
    """A record that was fetched, then changed, is read as it was fetched."""

    def made(before: Any) -> Any:
        def committed(self: StoredRecords, number: int) -> None:
            fetched = dict(self._fetched)
            before(self, number)
            self._fetched.update(fetched)

        return committed

    patch.replace(StoredRecords, "committed", made)


@mutant
def recent_is_never_out_of_date(patch: Patch) -> None:
    """A record that is kept in memory stays there as it was, when it is written again."""

    def made(before: Any) -> Any:
        def put(self: Recent, key: bytes, stored: Any) -> None:
            if key not in self._newer and key not in self._older:
                before(self, key, stored)

        return put

    patch.replace(Recent, "put", made)


@mutant
def recent_outlives_a_snapshot(patch: Patch) -> None:
    """Records that are kept in memory stay there, when a snapshot takes their place (R13)."""

    def made(before: Any) -> Any:
        def have_fetched(self: Replica, found: Any) -> None:
            recent = self._state.records._recent
            before(self, found)
            self._state.records._recent = recent

        return have_fetched

    patch.replace(Replica, "have_fetched", made)


@mutant
def wrong_batch_is_committed(patch: Patch) -> None:
    """The end of one commit counts for what was asked for while it was under way, too."""

    def made(before: Any) -> Any:
        def _committed(self: Store, result: Any, waiting: Any) -> None:
            if result is None:
                waiting = waiting + self._waiting
                self._waiting = []
                self._waiting.append(Deferred())
            before(self, result, waiting)

        return _committed

    patch.replace(Store, "_committed", made)


# -- who leads ----------------------------------------------------------------------------------


@mutant
def silent_group_never_wakes(patch: Patch) -> None:
    """When the node of its leader is gone, a group that has fallen silent sleeps on."""
    patch.replace(Raft, "suspect", instead(lambda self: None))


@mutant
def read_without_confirmation(patch: Patch) -> None:
    """Whoever believes to lead answers reads, without asking the others (R5)."""

    def begin_round(state: State, leading: Leading) -> None:
        asked, leading.asked = tuple(leading.asked), []
        reads._answer(state, asked, state.log.commit_index)

    patch.replace(reads, "begin_round", instead(begin_round))


@mutant
def read_before_own_commit(patch: Patch) -> None:
    """A new leader answers reads before it knows what is committed (R4)."""
    patch.replace(reads, "may_begin_round", instead(lambda state, leading: bool(leading.asked)))


@mutant
def strangers_are_heard(patch: Patch) -> None:
    """Messages are taken from whoever sends them, in whoever's name (R11)."""

    def receive(self: Post, connection: Any, arguments: Any) -> Any:
        for id, message in read_messages(arguments["messages"]):
            if id in self._groups and self._groups[id].member_of(message.to) == self._name:
                for peer in self._peers.values():
                    if self._groups[id].member_of(message.sender) == peer.member.name:
                        self._heard(peer, bool(arguments["willing"]))
                self._deliver(id, message)
        return {}

    patch.replace(Post, "receive", instead(receive))


# -- the replicated state -----------------------------------------------------------------------


@mutant
def generation_unchecked(patch: Patch) -> None:
    """A request is carried out whatever generation it was sent for (C5)."""

    def made(before: Any) -> Any:
        def carry_out(self: StateMachine, index: int, command: Any) -> Any:
            if isinstance(command, LonePut | Write | OpenSession):
                command = replace(command, generation=self.generation)
            return before(self, index, command)

        return carry_out

    patch.replace(StateMachine, "carry_out", made)


@mutant
def sessions_of_each_node(patch: Patch) -> None:
    """What makes retries safe is each node's own, and gone when it starts again (C2)."""

    def _save_sessions(self: StoredState) -> None:
        self._touched, self._is_expired = {}, False

    patch.replace(StoredState, "_save_sessions", instead(_save_sessions))


@mutant
def retry_carried_out_again(patch: Patch) -> None:
    """A write that is sent again takes place again (C2)."""

    def made(before: Any) -> Any:
        def admit(self: Sessions, id: int, seq: int, lowest: int, now_ms: int) -> Any:
            admitted = before(self, id, seq, lowest, now_ms)
            session = self._sessions.get(id)
            is_kept = session is not None and admitted is session.answers.get(seq)
            return session if is_kept and isinstance(session, Session) else admitted

        return admit

    patch.replace(Sessions, "admit", made)


# -- what is told -------------------------------------------------------------------------------


@mutant
def lost_proposals_are_not_done(patch: Patch) -> None:
    """A leader that is deposed says of what it has proposed that it was not done (C1)."""

    def made(before: Any) -> Any:
        def lose(self: Proposals, why: KvtwistError) -> None:
            before(self, Unavailable(str(why)))

        return lose

    patch.replace(Proposals, "lose", made)


@mutant
def answered_by_index_alone(patch: Patch) -> None:
    """A proposal counts as done when anything is applied at its index."""

    def made(before: Any) -> Any:
        def applied(self: Proposals, entry: Any, answer: Any) -> None:
            proposal = self._waiting.get(entry.index)
            if proposal is not None:
                self._waiting[entry.index] = entry.term, proposal[1]
            before(self, entry, answer)

        return applied

    patch.replace(Proposals, "applied", made)


@mutant
def late_is_not_done(patch: Patch) -> None:
    """A write whose time is up counts as not done, though it may be applied yet (C1)."""

    def made(before: Any) -> Any:
        def bounded(self: Router, answer: Any, command: Any, deadline: float) -> Any:
            return before(self, answer, None, deadline)

        return bounded

    patch.replace(Router, "bounded", made)


@mutant
def forwarded_again(patch: Patch) -> None:
    """A node that has forwarded a write, and has no answer, sends it again (C3)."""
    patch.replace(router, "_unknown", instead(lambda leader, error: Unavailable(str(error))))


@mutant
def lost_session_begins_anew(patch: Patch) -> None:
    """A client whose session is gone sends a write again in another one, though an attempt in the
    old one has no answer yet (C6)."""

    def made(before: Any) -> Any:
        def weighed(self: Ticket, command: Any, error: KvtwistError) -> KvtwistError:
            if isinstance(error, SessionRefused):
                self.is_unknown = False
            result: KvtwistError = before(self, command, error)
            return result

        return weighed

    patch.replace(Ticket, "weighed", made)
