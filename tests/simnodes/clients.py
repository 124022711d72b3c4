"""Clients: real ones, each in a process of its own, and what they ask.

A `ClientProcess` has a host, a `kvtwist.client.Client` on it, and a few *lanes*, each of which asks
one thing at a time. What has no answer is *unknown*, unless the client said that it was not done. A
process may be killed; another one takes its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from kvtwist.client import Client
from kvtwist.errors import KvtwistError, ManyFailed
from tests.linearizability.history import ABSENT, Kind
from tests.simnodes.history import GRACE_SECONDS, History
from tests.simnodes.network import Network
from tests.simnodes.plan import Plan

_KINDS = (
    *[Kind.GET] * 6,
    *[Kind.PUT] * 4,
    *[Kind.COMPARE_AND_SET] * 3,
    Kind.DELETE,
)
_MANY = 0.08
"""Share of requests that are for many keys."""
_COUNTED = 0.2
"""Share of requests that are on counters."""


class ClientProcess:
    """A process with a client in it.

    :param peers: the addresses that it is given.
    :ivar is_up: whether it runs.
    """

    def __init__(
        self,
        name: str,
        ip: str,
        plan: Plan,
        network: Network,
        history: History,
        keys: Sequence[bytes],
        counters: Sequence[bytes],
        peers: Sequence[str],
        timeout_seconds: float,
        clock_rate: float,
    ) -> None:
        self.name = name
        self.ip = ip
        self.is_up = False
        self.timeout_seconds = timeout_seconds
        self._plan = plan
        self._network = network
        self._history = history
        self._keys = keys
        self._counters = counters
        self._peers = peers
        self._clock_rate = clock_rate
        self._random = Random(f"{name} {plan.seed}")
        self._life = 0
        self._is_resting = False
        self._tickets: dict[int, None] = {}

    def start(self) -> None:
        """Begin to ask."""
        self._life += 1
        self.is_up = True
        self.host = self._network.boot(self.ip, self._clock_rate)
        self.client = Client(
            self.host,
            self._peers,
            timeout_seconds=self.timeout_seconds,
            chance=self._random.random,
        )
        for lane in range(self._plan.lanes):
            self._think(f"{self.name}.{self._life}.{lane}")

    def crash(self) -> None:
        """It is killed: what it had asked, nobody will know."""
        self.is_up = False
        self.host.die(self._random.choice(("killed", "reset", "power")))
        for ticket in [*self._tickets]:
            if self._history.is_open(ticket):
                self._history.unknown(ticket, "its client was killed")
        self._tickets.clear()

    def rest(self) -> None:
        """Begin nothing new."""
        self._is_resting = True

    def _think(self, lane: str) -> None:
        pause = self._plan.think_seconds * 2 * self._random.random()
        self.host.callLater(pause, self._next, lane)

    def _next(self, lane: str) -> None:
        if self._is_resting:
            return
        drawn = self._random.random()
        if drawn < _MANY:
            done = self._many(lane)
        elif drawn < _MANY + _COUNTED:
            done = self._count(lane, self._random.choice(self._counters))
        else:
            kind = self._random.choice(_KINDS)
            done = self._one(lane, kind, self._random.choice(self._keys))
        done.addCallback(lambda _: self._think(lane))
        done.addErrback(self._history.is_bug)

    # -- one key --------------------------------------------------------------------------------

    def _deadline(self) -> float:
        return self._network.clock.now + self.timeout_seconds / self._clock_rate + GRACE_SECONDS

    def _begin(self, lane: str, kind: Kind, key: bytes, **asked: Any) -> int:
        ticket = self._history.begin(lane, kind, key, self._deadline(), **asked)
        self._tickets[ticket] = None
        return ticket

    def _one(self, lane: str, kind: Kind, key: bytes) -> Deferred[Any]:
        history, client = self._history, self.client
        done: Deferred[Any]
        value = history.new_value(self._random, self._plan.value_bytes)
        match kind:
            case Kind.GET:
                ticket = self._begin(lane, kind, key)
                done = client.get(key).addCallback(self._got, ticket, key)
            case Kind.PUT:
                ticket = self._begin(lane, kind, key, value=value)
                done = client.put(key, value).addCallback(self._wrote, ticket, kind, key)
            case Kind.COMPARE_AND_SET:
                version = history.version_of(key)
                ticket = self._begin(lane, kind, key, value=value, version=version)
                swapped = client.compare_and_set(key, value, version)
                done = swapped.addCallback(self._wrote, ticket, kind, key)
            case Kind.DELETE:
                ticket = self._begin(lane, kind, key)
                done = client.delete(key).addCallback(self._deleted, ticket, key)
            case _:
                raise AssertionError(kind)
        return done.addErrback(self._failed, ticket, key)

    def _got(self, record: Any, ticket: int, key: bytes) -> None:
        version = ABSENT if record is None else record.version
        value = None if record is None else bytes(record.value)
        self._end(ticket)
        self._history.answered(ticket, Kind.GET, key, version=version, value=value)

    def _wrote(self, version: int, ticket: int, kind: Kind, key: bytes) -> None:
        self._end(ticket)
        self._history.answered(ticket, kind, key, version=version)

    def _deleted(self, was_there: bool, ticket: int, key: bytes) -> None:
        self._end(ticket)
        if was_there:
            self._history.answered(ticket, Kind.DELETE, key)
        else:
            self._history.answered(ticket, Kind.DELETE, key, done=False, version=ABSENT)

    def _failed(self, failure: Failure, ticket: int, key: bytes) -> None:
        error = failure.value
        if not isinstance(error, KvtwistError):
            failure.raiseException()
        self._end(ticket)
        self._history.failed(ticket, key, error)

    def _end(self, ticket: int) -> None:
        self._tickets.pop(ticket, None)

    # -- counters -------------------------------------------------------------------------------

    def _count(self, lane: str, key: bytes) -> Deferred[Any]:
        if self._random.random() < 0.2:
            return self._one(lane, Kind.GET, key)
        amount = self._random.randrange(1, 10)
        ticket = self._begin(lane, Kind.INCREMENT, key, amount=amount)
        done: Deferred[Any] = self.client.increment(key, amount)
        done.addCallback(self._counted, ticket, key)
        return done.addErrback(self._failed, ticket, key)

    def _counted(self, sum: Any, ticket: int, key: bytes) -> None:
        self._end(ticket)
        value = b"%d" % sum.number
        self._history.answered(ticket, Kind.INCREMENT, key, version=sum.version, value=value)

    # -- many keys ------------------------------------------------------------------------------

    def _many(self, lane: str) -> Deferred[Any]:
        some = self._random.sample(self._keys, self._random.randrange(1, len(self._keys) + 1))
        # One request is as many operations at once: each has a lane of its own in the history.
        lanes = {key: f"{lane}/{number}" for number, key in enumerate(some)}
        done: Deferred[Any]
        if self._random.random() < 0.5:
            tickets = {key: self._begin(lanes[key], Kind.GET, key) for key in some}
            done = self.client.get_many(some)
            done.addCallbacks(
                self._got_many,
                self._many_failed,
                callbackArgs=(tickets,),
                errbackArgs=(tickets, self._got_many),
            )
            return done
        values = {key: self._history.new_value(self._random, 50) for key in some}
        tickets = {
            key: self._begin(lanes[key], Kind.PUT, key, value=value)
            for key, value in values.items()
        }
        done = self.client.put_many(values)
        done.addCallbacks(
            self._put_many,
            self._many_failed,
            callbackArgs=(tickets,),
            errbackArgs=(tickets, self._put_many),
        )
        return done

    def _got_many(self, records: dict[bytes, Any], tickets: dict[bytes, int]) -> None:
        for key, record in records.items():
            self._got(record, tickets[key], key)

    def _put_many(self, versions: dict[bytes, int], tickets: dict[bytes, int]) -> None:
        for key, version in versions.items():
            self._wrote(version, tickets[key], Kind.PUT, key)

    def _many_failed(
        self, failure: Failure, tickets: dict[bytes, int], answered: Callable[..., None]
    ) -> None:
        failure.trap(ManyFailed)
        failed: Any = failure.value
        answered(failed.results, tickets)
        for key, error in failed.errors.items():
            self._end(tickets[key])
            self._history.failed(tickets[key], key, error)
