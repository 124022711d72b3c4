"""A group of replicas on simulated disks, without the rest of their nodes.

Each stands on a host of its own, with its `Replicas`, its disk, and what carries snapshots; between
them Raft messages and commands pass after a moment, as fast as the network is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.protocols import amp
from twisted.python.failure import Failure

from kvtwist.core.raft import Configuration, Raft, Role, Settings, Snapshot
from kvtwist.core.raft.messages import Message
from kvtwist.core.state.commands import Command, Write
from kvtwist.core.state.operations import Put
from kvtwist.errors import KvtwistError, NoAnswer, NotSent, Refused
from kvtwist.node.arrivals import Arrivals
from kvtwist.node.departures import Departures
from kvtwist.node.followers import Followers
from kvtwist.node.replica import Replica
from kvtwist.node.replicas import Replicas
from kvtwist.storage import logs
from kvtwist.storage.engine import Engine
from kvtwist.storage.layout import PER_GENERATION, generation_of, group_key
from kvtwist.storage.snapshots import outgoing, remove_orphans
from kvtwist.storage.states import load_state, new_state
from kvtwist.wire import commands
from kvtwist.wire.turn import Turn
from tests.simulated import LATENCY_SECONDS, Network
from tests.storage.simulated import Platter, opener

GENERATION = 1


class Line:
    """What a responder is told of who asks: a connection, as far as that goes."""

    def __init__(self, asker: int) -> None:
        self.asker = asker
        self._when_lost: list[Callable[[Any], None]] = []

    def when_lost(self, notify: Callable[[Any], None]) -> None:
        self._when_lost.append(notify)

    def lose(self) -> None:
        for notify in self._when_lost:
            notify(None)


class Link:
    """The bulk link of one node to another: `kvtwist.node.departures.Caller`."""

    def __init__(self, group: Group, here: int, there: int) -> None:
        self._group = group
        self._here, self._there = here, there

    def call(
        self, command: type[amp.Command], arguments: dict[str, Any], timeout_seconds: float
    ) -> Deferred[dict[str, Any]]:
        group, host = self._group, self._group.nodes[self._here].host
        asked: Deferred[dict[str, Any]] = Deferred()
        group.calls.append((self._here, self._there, command, arguments))

        def answered(result: Any) -> None:
            if timer.active():
                timer.cancel()
            if not asked.called:
                asked.callback(result)  # of a failure, its errback

        timer = host.callLater(timeout_seconds, answered, Failure(NoAnswer("no answer")))
        group.asked.append((host, self._there, answered))

        size_bytes = len(arguments.get("piece", b""))
        seconds = LATENCY_SECONDS + size_bytes / group.network.bytes_per_second
        host.callLater(seconds, self._arrive, command, arguments, answered)
        return asked

    def _arrive(
        self, command: type[amp.Command], arguments: dict[str, Any], answered: Callable[[Any], None]
    ) -> None:
        there = self._group.nodes.get(self._there)
        if there is None or (self._here, self._there) in self._group.cuts:
            if there is None:
                answered(Failure(NotSent("connection refused")))
            return
        here = self._group.nodes[self._here].host
        line = there.line(self._here, self._group.nodes[self._here])
        respond: Any = there.arrivals.responders()[command]
        done: Deferred[Any] = maybeDeferred(respond, line, {"keyspace": None, **arguments})
        done.addBoth(lambda result: here.callLater(LATENCY_SECONDS, answered, result))


class Silent:
    """Gives no signs of life: `kvtwist.node.replicas.Carrier`."""

    def flush(self) -> None:
        pass

    def tick(self) -> None:
        pass


class GroupNode:
    """One node."""

    def __init__(self, group: Group, number: int) -> None:
        self.group = group
        self.number = number
        self.host = group.network.host(f"10.0.0.{number}")
        self.failed: KvtwistError | None = None
        storage = opener(group.platters[number])(
            self.host, Path("."), f"node-{number}", f"{number:032x}"
        )
        self.directory, self.store = storage.directory, storage.store
        self.replicas = Replicas(
            self.host, self.store, Silent(), Turn(), self._make, self._failed, lambda: None
        )
        self.departures = Departures(
            self.host, self.store, lambda _, to: Link(group, number, to), self.host.seconds
        )
        self.arrivals = Arrivals(self.host, self.store, self._find, self.host.seconds)
        self._lines: dict[int, tuple[GroupNode, Line]] = {}
        engine = self.directory.engine
        batch = remove_orphans(engine)
        for each in group.groups:
            if logs.load(engine, each, 0) is None:
                logs.save_base(batch, each, Snapshot(0, 0, group.configuration))
                state = new_state(each, engine, engine.get_cached, GENERATION, 0)
                batch.extend(state.take_batch()[0])
        engine.commit(batch, sync=True)
        self.replicas.start(group.groups)
        self.departures.start()

    def _failed(self, error: KvtwistError) -> None:
        self.failed = error

    def _make(self, group: int, changed: Callable[[Replica], None]) -> Replica:
        engine = self.directory.engine
        state = load_state(group, engine, engine.get_cached)
        restored = logs.load(engine, group, 0)
        assert state is not None and restored is not None
        restored = replace(restored, applied=state.machine.applied_index)
        life = self.directory.record.life
        chance = self.group.chances[self.number]
        raft = Raft(self.number, self.group.settings, restored, lambda: chance, life)
        last, seconds = raft.last_index, self.host.seconds
        replica = Replica(group, raft, state, last, seconds, changed, self._send, self._wanted)
        changed(replica)
        return replica

    def _wanted(self, followers: Followers, to: int) -> None:
        self.departures.wanted(followers, to)

    def _send(self, group: int, message: Message) -> None:
        if (self.number, message.to) not in self.group.cuts:
            self.host.callLater(LATENCY_SECONDS, self._deliver, group, message)

    def _deliver(self, group: int, message: Message) -> None:
        there = self.group.nodes.get(message.to)
        if there is not None:
            there.replicas.replica(group).step(message)

    def _find(self, line: Any, group: int, sender: int, to: int) -> Replica:
        if line.asker != sender or to != self.number or group not in self.group.groups:
            raise Refused("that is somebody else's")
        return self.replicas.replica(group)

    def line(self, asker: int, life: GroupNode) -> Line:
        """The connection that *asker* has dialled, in this life of its."""
        known = self._lines.get(asker)
        if known is None or known[0] is not life:
            if known is not None:
                known[1].lose()
            self._lines[asker] = life, Line(asker)
        return self._lines[asker][1]

    def lose_lines(self, asker: int) -> None:
        """The node that asked is dead: its connection is lost."""
        known = self._lines.pop(asker, None)
        if known is not None:
            self.host.callLater(LATENCY_SECONDS, known[1].lose)


class Group:
    """Nodes with a replica each of some groups.

    :ivar cuts: (from, to): nothing passes.
    :ivar calls: all commands that were sent: from, to, command, arguments.
    """

    def __init__(self, size: int = 3, groups: int = 1) -> None:
        self.network = Network()
        self.settings = Settings()
        self.configuration = Configuration(tuple(range(1, size + 1)))
        self.groups = tuple(range(2, 2 + groups))
        self.platters = {number: Platter() for number in range(1, size + 1)}
        # Node 1 is the first to stand, unless it is dead.
        self.chances = {number: 0.3 * (number - 1) for number in range(1, size + 1)}
        self.nodes: dict[int, GroupNode] = {}
        self.cuts: set[tuple[int, int]] = set()
        self.asked: list[tuple[Any, int, Callable[[Any], None]]] = []
        self.calls: list[tuple[int, int, type[amp.Command], dict[str, Any]]] = []
        for number in self.platters:
            self.start(number)
        self.run(2.0)

    def start(self, number: int) -> GroupNode:
        self.nodes[number] = GroupNode(self, number)
        return self.nodes[number]

    def crash(self, number: int, kept: int = 0) -> None:
        """Kill one; of what was not synced the first *kept* batches are kept."""
        self.network.crash(f"10.0.0.{number}")
        del self.nodes[number]
        self.platters[number].crash(kept)
        for node in self.nodes.values():
            node.lose_lines(number)
        lost = Failure(NoAnswer("the connection was lost"))
        for host, there, answered in self.asked:
            if there == number:
                host.callLater(LATENCY_SECONDS, answered, lost)
        self.asked.clear()

    def cleanup(self) -> None:
        for platter in self.platters.values():
            platter.cleanup()

    def run(self, seconds: float) -> None:
        self.network.run(seconds)

    def run_until(self, is_so: Callable[[], bool], seconds: float = 60.0) -> None:
        """Step by step."""
        clock = self.network.clock
        end = clock.seconds() + seconds
        while not is_so():
            assert clock.seconds() < end, f"not so within {seconds} s"
            calls = clock.getDelayedCalls()
            clock.advance(max(0.0, calls[0].getTime() - clock.seconds()))

    def leader(self, group: int = 2) -> int:
        """Its number."""
        (number,) = (
            number
            for number, node in self.nodes.items()
            if node.replicas.replica(group).raft.role is Role.LEADER
        )
        return number

    def replica(self, number: int, group: int = 2) -> Replica:
        return self.nodes[number].replicas.replica(group)

    def propose(self, command: Callable[[int], Command], group: int = 2) -> Any:
        """The answer."""
        replica = self.replica(self.leader(group), group)
        return self.network.result_of(replica.propose(command))

    def put(self, *pairs: tuple[bytes, bytes], group: int = 2) -> None:
        """Write them, one entry each, many at once."""
        replica = self.replica(self.leader(group), group)
        answers = [replica.propose(partial(_put, key, value)) for key, value in pairs]
        for answer in answers:
            self.network.result_of(answer)

    def get(self, number: int, key: bytes, group: int = 2) -> bytes | None:
        """What a replica answers to a linearizable read."""
        record = self.network.result_of(self.replica(number, group).read(key, 0))
        return None if record is None else bytes(record.value)

    def digest(self, number: int, group: int = 2) -> tuple[int, bytes]:
        """Of the state in a node's store, and how far it is applied."""
        with self.nodes[number].directory.engine.view() as view:
            snapshot = outgoing(view, group)
            assert snapshot is not None
            return snapshot.applied_index, snapshot.digest()

    def pieces(self, to: int | None = None) -> list[dict[str, Any]]:
        """The arguments of those that were sent."""
        return [
            arguments
            for _, there, command, arguments in self.calls
            if command is commands.SnapshotPiece and arguments["piece"] and to in (None, there)
        ]


def generations(engine: Engine, group: int = 2) -> set[int]:
    """Those that a store has keys of."""
    found: set[int] = set()
    for kind in PER_GENERATION:
        scan = engine.scan(group_key(kind, group), group_key(kind, group + 1))
        found |= {generation_of(key) for key, _ in scan}
    return found


def _put(key: bytes, value: bytes, stamp_ms: int) -> Write:
    return Write(stamp_ms, GENERATION, 0, 0, 0, (Put(key, value),))
