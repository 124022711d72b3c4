"""The meta group on one node: its leader writes the topology down, and every node holds it against
the map that it works by.

Nothing waits for any of this: partitions elect and serve without the meta group. In this release
the topology never changes after the founding, so that there is one record, of epoch 1.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger
from twisted.python.failure import Failure

from kvtwist.core.meta import TOPOLOGY_KEY, decode, encode, first_record, objection
from kvtwist.core.state.answers import Answer
from kvtwist.core.state.commands import NO_SESSION, Command, Write
from kvtwist.core.state.contents import stored_key
from kvtwist.core.state.operations import Put
from kvtwist.core.state.records import ABSENT, Record
from kvtwist.core.topology import Topology
from kvtwist.errors import ConfigurationError, KvtwistError
from kvtwist.node.replica import Replica
from kvtwist.storage.engine import Engine
from kvtwist.storage.states import StoredState

_log = Logger(namespace="kvtwist.node")


class Meta:
    """This node's part in the meta group.

    :param topology: what this node works by.
    :param replica: the meta group's replica here; ``None``: there is none (any more).
    :param failed: called, once, when the cluster has another topology.

    :ivar epoch: of the topology that the meta group is known to have; 0: it is not known yet.
    """

    def __init__(
        self,
        topology: Topology,
        replica: Callable[[], Replica | None],
        failed: Callable[[KvtwistError], None],
    ) -> None:
        self._mine = first_record(topology)
        self._replica = replica
        self._failed = failed
        self._is_busy = False
        self._is_over = False
        self.epoch = 0

    def check_kept(self, state: StoredState, engine: Engine) -> None:
        """Look at what the disk has of it, which may be behind. Waits for the disk.

        :raises ConfigurationError: when it is another topology than this node works by.
        """
        key = stored_key(0, TOPOLOGY_KEY)
        missing = state.records.missing([key])
        state.records.have_fetched(state.records.fetch(engine, missing))
        record = state.read(key)
        if record is not None:
            self._check(record)

    def look(self) -> None:
        """Ask for it, until it is known; to be called now and then."""
        replica = self._replica()
        if self.epoch or self._is_busy or self._is_over or replica is None:
            return
        self._is_busy = True
        asked = replica.read(TOPOLOGY_KEY, 0)
        asked.addCallback(self._found, replica)
        asked.addErrback(self._failed_to)

    def _found(self, record: Record | None, replica: Replica) -> None:
        """It was read, no older than the question."""
        if record is not None:
            self._is_busy = False
            self._check(record)
            self.epoch = record.version
        elif replica.leads:
            replica.propose(self._writing(replica)).addCallbacks(self._written, self._failed_to)
        else:
            self._is_busy = False  # who leads writes it

    def _writing(self, replica: Replica) -> Callable[[int], Command]:
        """Only if it is absent: a leader that was deposed meanwhile must not write it again."""
        put = Put(TOPOLOGY_KEY, encode(self._mine), version=ABSENT)
        generation = replica.generation
        return lambda stamp_ms: Write(stamp_ms, generation, NO_SESSION, 0, 0, (put,))

    def _written(self, _: Answer) -> None:
        """By this node, or by another one just before: the next look will show it."""
        self._is_busy = False

    def _check(self, record: Record) -> None:
        """:raises ConfigurationError: when it is another topology."""
        why = objection(self._mine, decode(record.value))
        if why:
            raise ConfigurationError(why)

    def _failed_to(self, failure: Failure) -> None:
        """Nobody leads just now, or what was asked for is lost: the next look asks again. But to
        work by another map than the cluster's is the end."""
        self._is_busy = False
        error = failure.value
        if isinstance(error, ConfigurationError):
            self._is_over = True
            self._failed(error)
        elif not isinstance(error, KvtwistError):
            _log.failure("the meta group: a bug", failure)
