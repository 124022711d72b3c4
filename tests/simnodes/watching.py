"""Puts an `Inspector` between the parts of all nodes, for the time of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kvtwist.core.raft import Entry, Message
from kvtwist.core.state.machine import StateMachine
from kvtwist.node.durable import DurablePartitions
from kvtwist.node.post import Post
from kvtwist.node.replica import Replica
from kvtwist.node.waiting import Reader
from tests.sim.mutants.planting import Patch
from tests.simnodes.invariants import Inspector


@contextmanager
def watched(inspector: Inspector) -> Iterator[None]:
    """While inside, *inspector* sees what all nodes do."""
    patch = Patch()
    try:
        _watch_replicas(patch, inspector)
        _watch_messages(patch, inspector)
        _watch_applying(patch, inspector)
        _watch_reads(patch, inspector)
        yield
    finally:
        patch.undo()


def _watch_replicas(patch: Patch, inspector: Inspector) -> None:
    def made_start(before: Any) -> Any:
        def start(self: DurablePartitions, topology: Any) -> None:
            inspector.ledger.founded(topology)
            before(self, topology)

        return start

    def made_replica(before: Any) -> Any:
        def _replica(self: DurablePartitions, group: int, changed: Any) -> Replica:
            replica: Replica = before(self, group, changed)
            inspector.started(self._name, replica)
            return replica

        return _replica

    def made_take(before: Any) -> Any:
        def take(self: Replica, batch: Any) -> Any:
            taken = before(self, batch)
            inspector.taken(self)
            return taken

        return take

    patch.replace(DurablePartitions, "start", made_start)
    patch.replace(DurablePartitions, "_replica", made_replica)
    patch.replace(Replica, "take", made_take)


def _watch_messages(patch: Patch, inspector: Inspector) -> None:
    def made_send(before: Any) -> Any:
        def send(self: Post, group: int, message: Message) -> None:
            inspector.sending(self._name, group, message)
            before(self, group, message)

        return send

    patch.replace(Post, "send", made_send)


def _watch_applying(patch: Patch, inspector: Inspector) -> None:
    def made_carry_out(before: Any) -> Any:
        def _carry_out(self: Replica, entry: Entry, command: Any) -> None:
            inspector.applying(self, entry)
            revision = self.revision
            before(self, entry, command)
            inspector.applied(self, entry, command, revision)

        return _carry_out

    def made_machine(before: Any) -> Any:
        def carry_out(self: StateMachine, index: int, command: Any) -> Any:
            answer = before(self, index, command)
            inspector.answered(answer)
            return answer

        return carry_out

    def made_have_fetched(before: Any) -> Any:
        def have_fetched(self: Replica, found: Any) -> None:
            state = self._state
            before(self, found)
            if self._state is not state:
                inspector.installed(self)

        return have_fetched

    patch.replace(Replica, "_carry_out", made_carry_out)
    patch.replace(StateMachine, "carry_out", made_machine)
    patch.replace(Replica, "have_fetched", made_have_fetched)


def _watch_reads(patch: Patch, inspector: Inspector) -> None:
    def made_ask(before: Any) -> Any:
        def ask(self: Replica, reader: Reader) -> Any:
            inspector.asked(self, reader)
            return before(self, reader)

        return ask

    def made_answer(before: Any) -> Any:
        def _answer_reads(self: Replica) -> Any:
            inspector.reading(self)
            return before(self)

        return _answer_reads

    patch.replace(Replica, "ask", made_ask)
    patch.replace(Replica, "_answer_reads", made_answer)
