"""The clients, and the history of what they did.

Each client has a *lane* for each partition: one operation after another there, at a fixed pace as
long as answers come. So a partition that nobody serves holds up its own lanes only. One more lane
of each client does many keys at once, of all partitions.

All clients are in this process and on its monotonic clock: what their history says about before and
after is exact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from kvtwist.client.client import Client
from kvtwist.core.ring import partition_of
from kvtwist.errors import KvtwistError, ManyFailed, NotDone, OutcomeUnknown, VersionMismatch
from tests.chaos.values import PADDED_PARTITIONS, PADDED_SHARE, name_of, padded
from tests.chaos.visitor import Visitor
from tests.linearizability.history import ABSENT, Kind, Recorder

REGISTERS, ERASED, COUNTERS = b"register", b"erased", b"counter"

_MIXES: dict[bytes, tuple[Kind, ...]] = {
    REGISTERS: (*[Kind.GET] * 4, *[Kind.PUT] * 4, *[Kind.COMPARE_AND_SET] * 3),
    ERASED: (
        *[Kind.GET] * 4,
        *[Kind.PUT] * 3,
        *[Kind.COMPARE_AND_SET] * 3,
        *[Kind.DELETE] * 2,
    ),
    COUNTERS: (Kind.GET, *[Kind.INCREMENT] * 4),
}
"""What is done to a key, by the first part of its name."""
_VISITS_SHARE = 0.3
_MANY_KEYS = 8
_MANY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of each partition."""

    by_partition: tuple[tuple[bytes, ...], ...]

    @classmethod
    def of(cls, partitions: int, each: int) -> Keys:
        """*each* registers, one key that is deleted now and then, and a counter, in each
        partition."""
        kinds = [*[REGISTERS] * each, ERASED, COUNTERS]
        found: list[list[bytes]] = [[] for _ in range(partitions)]
        number = 0
        while any(len(those) < len(kinds) for those in found):
            for at, those in enumerate(found):
                if len(those) == len(kinds):
                    continue
                key = b"%s-%d" % (kinds[len(those)], number)
                if partition_of(key, partitions) == at:
                    those.append(key)
            number += 1
        return cls(tuple(map(tuple, found)))

    @property
    def all(self) -> list[bytes]:
        """Of all partitions."""
        return [key for those in self.by_partition for key in those]


@dataclass(slots=True)
class History:
    """What was done.

    :ivar recorder: each operation.
    :ivar errors: what clients were told that was no answer, by the name of the error.
    :ivar visit_errors: what visitors were told; they never try again.
    :ivar examples: what the first error of each name said.
    """

    clock: Callable[[], float]
    recorder: Recorder = field(default_factory=Recorder)
    errors: Counter[str] = field(default_factory=Counter)
    visit_errors: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def failed(self, ticket: int, error: BaseException, *, is_visit: bool = False) -> None:
        """What an operation's error says about it."""
        at = self.clock()
        if isinstance(error, VersionMismatch):
            self.recorder.answered(
                ticket, at=at, done=False, version=error.version, value=name_of(error.value)
            )
            return
        name = type(error).__name__
        (self.visit_errors if is_visit else self.errors)[name] += 1
        self.examples.setdefault(name, str(error))
        if isinstance(error, NotDone):
            self.recorder.not_done(ticket, at=at)
        elif isinstance(error, OutcomeUnknown):
            self.recorder.unknown(ticket, at=at)
        else:
            raise error


class Worker:
    """One client.

    :param pace: operations a second, in each lane.
    """

    def __init__(
        self,
        reactor: Any,
        name: str,
        peers: list[str],
        keys: Keys,
        history: History,
        random: Random,
        pace: float,
    ) -> None:
        self._reactor = reactor
        self._name = name
        self._keys = keys
        self._history = history
        self._random = random
        self._pace = pace
        self._is_ending = False
        self._values = 0
        self._versions: dict[bytes, int] = {}
        order = random.sample(peers, len(peers))
        self._client = Client(reactor, order, chance=random.random)
        self._visitor = Visitor(reactor, peers, random)

    async def run(self) -> None:
        """Work until `end`."""
        lanes = [self._lane(at, those) for at, those in enumerate(self._keys.by_partition)]
        lanes.append(self._many_lane())
        await gatherResults([Deferred.fromCoroutine(lane) for lane in lanes], consumeErrors=True)

    def end(self) -> None:
        """Begin nothing more."""
        self._is_ending = True

    async def close(self) -> None:
        """Hang up."""
        await self._client.close()
        await self._visitor.close()

    async def _lane(self, partition: int, keys: tuple[bytes, ...]) -> None:
        await self._pause(self._random.uniform(0, 1 / self._pace))
        while not self._is_ending:
            due = self._reactor.seconds() + self._random.uniform(0.5, 1.5) / self._pace
            share = PADDED_SHARE if partition < PADDED_PARTITIONS else 0.0
            await self._one(f"{self._name}.{partition}", self._random.choice(keys), share)
            await self._pause(due - self._reactor.seconds())

    async def _one(self, lane: str, key: bytes, padded_share: float) -> None:
        """One operation on one key."""
        kind = self._random.choice(_MIXES[key.partition(b"-")[0]])
        history, begin = self._history, self._history.recorder.begin
        name, at = self._name_of_value(), history.clock()
        value = padded(name, self._random) if self._random.random() < padded_share else name
        wanted = self._random.choice((ABSENT, *[self._versions.get(key, ABSENT)] * 4))
        is_visit = kind is not Kind.INCREMENT and self._random.random() < _VISITS_SHARE
        client = self._visitor if is_visit else self._client
        lane += "v" if is_visit else ""
        try:
            match kind:
                case Kind.GET:
                    ticket = begin(lane, kind, key, at=at)
                    self._read(ticket, key, await client.get(key))
                case Kind.PUT:
                    ticket = begin(lane, kind, key, at=at, value=name)
                    self._wrote(ticket, key, await client.put(key, value))
                case Kind.COMPARE_AND_SET:
                    ticket = begin(lane, kind, key, at=at, value=name, version=wanted)
                    self._wrote(ticket, key, await client.compare_and_set(key, value, wanted))
                case Kind.DELETE:
                    ticket = begin(lane, kind, key, at=at)
                    is_done = await client.delete(key)
                    version = None if is_done else ABSENT
                    history.recorder.answered(
                        ticket, at=history.clock(), done=is_done, version=version
                    )
                case Kind.INCREMENT:
                    amount = self._random.randrange(1, 10)
                    ticket = begin(lane, kind, key, at=at, amount=amount)
                    self._added(ticket, key, await self._client.increment(key, amount))
        except KvtwistError as error:
            history.failed(ticket, error, is_visit=is_visit)
            if isinstance(error, VersionMismatch):
                self._versions[key] = error.version

    def _name_of_value(self) -> bytes:
        """Of one that nobody else writes."""
        self._values += 1
        return b"%s:%d" % (self._name.encode(), self._values)

    def _read(self, ticket: int, key: bytes, record: Any) -> None:
        version, value = _seen(record)
        self._versions[key] = version
        self._history.recorder.answered(
            ticket, at=self._history.clock(), version=version, value=value
        )

    def _wrote(self, ticket: int, key: bytes, version: int) -> None:
        self._versions[key] = version
        self._history.recorder.answered(ticket, at=self._history.clock(), version=version)

    def _added(self, ticket: int, key: bytes, answer: Any) -> None:
        self._history.recorder.answered(
            ticket, at=self._history.clock(), version=answer.version, value=b"%d" % answer.number
        )

    async def _many_lane(self) -> None:
        keys = [key for key in self._keys.all if not key.startswith(COUNTERS)]
        while not self._is_ending:
            due = self._reactor.seconds() + self._random.uniform(0.5, 1.5) * _MANY_SECONDS
            chosen = self._random.sample(keys, min(_MANY_KEYS, len(keys)))
            await (self._get_many if self._random.random() < 0.5 else self._put_many)(chosen)
            await self._pause(due - self._reactor.seconds())

    async def _get_many(self, keys: list[bytes]) -> None:
        tickets = self._begin_many(Kind.GET, dict.fromkeys(keys))
        results = await self._outcome(self._client.get_many(keys), tickets)
        for key, record in results.items():
            self._read(tickets[key], key, record)

    async def _put_many(self, keys: list[bytes]) -> None:
        values = {key: self._name_of_value() for key in keys}
        tickets = self._begin_many(Kind.PUT, values)
        results = await self._outcome(self._client.put_many(values), tickets)
        for key, version in results.items():
            self._wrote(tickets[key], key, version)

    def _begin_many(self, kind: Kind, values: dict[bytes, Any]) -> dict[bytes, int]:
        """A ticket for each key: to the history each is an operation of its own."""
        at, begin = self._history.clock(), self._history.recorder.begin
        return {
            key: begin(f"{self._name}.many", kind, key, at=at, value=value)
            for key, value in values.items()
        }

    async def _outcome(
        self, call: Awaitable[dict[bytes, Any]], tickets: dict[bytes, int]
    ) -> dict[bytes, Any]:
        """The results that there are; the errors are noted."""
        try:
            return await call
        except ManyFailed as error:
            for key, trouble in error.errors.items():
                self._history.failed(tickets[key], trouble)
            return error.results

    async def _pause(self, seconds: float) -> None:
        await deferLater(self._reactor, max(0.0, seconds), lambda: None)


def _seen(record: Any) -> tuple[int, bytes | None]:
    """Version, and name of the value."""
    return (ABSENT, None) if record is None else (record.version, name_of(record.value))


async def read_all(
    reactor: Any, peers: list[str], keys: Keys, history: History, seconds_max: float
) -> list[bytes]:
    """Read every key once more, by a new client; the keys that nobody could read in time.

    So that an acknowledged write that is lost shows even if nobody has looked meanwhile.
    """
    client = Client(reactor, peers)
    end = reactor.seconds() + seconds_max
    unread = keys.all
    while unread and reactor.seconds() < end:
        again = []
        for key in unread:
            ticket = history.recorder.begin("last", Kind.GET, key, at=history.clock())
            try:
                record = await client.get(key)
            except KvtwistError as error:
                history.failed(ticket, error)
                again.append(key)
                continue
            version, value = _seen(record)
            history.recorder.answered(ticket, at=history.clock(), version=version, value=value)
        unread = again
    await client.close()
    return unread
