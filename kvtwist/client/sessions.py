"""The client's sessions: what lets it send a write again whose answer it has not got.

As in RIFL (Lee et al., "Implementing linearizability at large scale and low latency", SOSP 2015;
its "RPC id" is our session and seq). A partition carries a seq of a session out once and remembers
the answer (`kvtwist.core.state.sessions`); what is owed for that is here:

Rule 1: a write keeps its seq from one attempt to the next, and no other write ever has it.

Rule 2: the mark passes a seq when its write is over, and never before: then it is not sent again.

Rule 3: a session that the partition does not know any more takes its writes with it. One of which
no attempt can have been carried out begins anew, in another session; any other's outcome is unknown
(C6).

One session for each partition, opened by the first write there, which others wait for. A cluster in
memory has none, and a partition that has too many opens no more for a while: there writes go
without, and are sent once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError
from twisted.protocols import amp

from kvtwist.core.state.commands import NO_SESSION
from kvtwist.core.state.fields import U64_MAX
from kvtwist.core.state.sessions import ANSWERS_MAX
from kvtwist.errors import (
    KvtwistError,
    NotSent,
    OutcomeUnknown,
    SessionRefused,
    WrongGeneration,
)
from kvtwist.wire.again import UNFIT, may_be_sent_again
from kvtwist.wire.codec import Values
from kvtwist.wire.once import pack_once

IDLE_MS = 10 * 60 * 1000
"""A session that has written nothing for so long is over; the next write opens another."""

WITHOUT_SECONDS = 30.0
"""How long a partition that has too many sessions is not asked for another."""


class Session:
    """A session in one partition.

    :ivar partition: its number.
    :ivar generation: of the partition's membership, as it was last heard.
    :ivar mark: the lowest seq that is unanswered.
    :ivar is_over: whether the partition does not know it (any more).

    **Invariant:** mark <= every unanswered seq < mark + `ANSWERS_MAX`.
    """

    __slots__ = (
        "_next",
        "_unanswered",
        "_waiting",
        "generation",
        "id",
        "is_over",
        "mark",
        "partition",
    )

    def __init__(self, partition: int, id: int, generation: int) -> None:
        self.partition = partition
        self.id = id
        self.generation = generation
        self.mark = 0
        self._next = 0
        self._unanswered: set[int] = set()
        self._waiting: deque[tuple[int, Deferred[int | None]]] = deque()
        self.is_over = False

    def begin(self) -> int | None:
        """A seq for another write; ``None``: there is no room, it has to wait."""
        seq = self._next
        if self._waiting or seq - self.mark >= ANSWERS_MAX:
            return None
        self._next = seq + 1
        self._unanswered.add(seq)
        return seq

    def when_begun(self, count: int) -> Deferred[int | None]:
        """The first of *count* seqs, once there is room for all; first come, first served.

        ``None``: the session is over.
        """
        assert 1 <= count <= ANSWERS_MAX, count
        waiting: Deferred[int | None] = Deferred(self._given_up)
        self._waiting.append((count, waiting))
        self._serve()
        return waiting

    def once(self, seq: int) -> bytes:
        """What the write with that seq carries."""
        return pack_once(self.generation, self.id, seq, self.mark)

    def end(self, seq: int) -> None:
        """The write with that seq is over: it will not be sent again."""
        self._unanswered.remove(seq)
        if seq == self.mark:
            unanswered, mark, following = self._unanswered, seq + 1, self._next
            while mark < following and mark not in unanswered:
                mark += 1
            self.mark = mark
            if self._waiting:
                self._serve()

    def over(self) -> None:
        """The partition does not know it: nothing more begins in it."""
        self.is_over = True
        self._serve()

    def _serve(self) -> None:
        while self._waiting:
            count, waiting = self._waiting[0]
            first = self._next
            if not self.is_over and first + count - self.mark > ANSWERS_MAX:
                return
            self._waiting.popleft()
            if self.is_over:
                waiting.callback(None)
            else:
                self._next += count
                self._unanswered.update(range(first, self._next))
                waiting.callback(first)

    def _given_up(self, waiting: Deferred[int | None]) -> None:
        self._waiting = deque(one for one in self._waiting if one[1] is not waiting)
        self._serve()


class Slot:
    """Where a partition's session is, if there is one.

    :ivar none_until: there is none to be had before that time.
    :ivar is_opening: whether somebody opens one; the others wait.
    """

    __slots__ = ("is_opening", "none_until", "session", "waiting")

    def __init__(self) -> None:
        self.session: Session | None = None
        self.none_until = 0.0
        self.is_opening = False
        self.waiting: deque[Deferred[None]] = deque()


class Sessions:
    """The sessions of one client.

    :param ask: sends an `kvtwist.wire.commands.OpenSession` for a key, until a deadline.
    :param seconds: the clock that deadlines are on.

    :ivar slots: one for each partition; empty: there are no sessions, or nothing is known yet.
    """

    def __init__(
        self,
        reactor: Any,
        ask: Callable[[bytes, float], Deferred[Values]],
        seconds: Callable[[], float],
    ) -> None:
        self._reactor = reactor
        self._ask = ask
        self._seconds = seconds
        self.slots: list[Slot] = []

    def know(self, partitions: int, is_durable: bool) -> None:
        """The cluster has so many partitions, which it never changes."""
        if is_durable and not self.slots:
            self.slots = [Slot() for _ in range(partitions)]

    async def begun(
        self, partition: int, key: bytes, count: int, deadline: float
    ) -> tuple[Session, int] | None:
        """A session in that partition, and the first of *count* seqs; ``None``: write without.

        :param key: some key of the partition.
        :raises KvtwistError: when no session could be opened in time. Nothing was sent.
        """
        while (session := await self.session(partition, key, deadline)) is not None:
            why = "too many writes before it have no answer yet"
            first = await self._in_time(session.when_begun(count), deadline, why)
            if first is not None:
                return session, first
        return None

    async def session(self, partition: int, key: bytes, deadline: float) -> Session | None:
        """The session in that partition, opened if there is none; ``None``: write without."""
        if not self.slots:
            return None
        slot = self.slots[partition]
        while slot.session is None and slot.none_until <= self._seconds():
            if not slot.is_opening:
                return await self._open(slot, partition, key, deadline)
            waiting: Deferred[None] = Deferred()
            slot.waiting.append(waiting)
            await self._in_time(waiting, deadline, "no session was opened yet")
        return slot.session

    def lose(self, session: Session) -> None:
        """The partition does not know that session any more."""
        slot = self.slots[session.partition]
        if slot.session is session:
            slot.session = None
        session.over()

    async def _open(
        self, slot: Slot, partition: int, key: bytes, deadline: float
    ) -> Session | None:
        slot.is_opening = True
        session = None
        try:
            answer = await self._ask(key, deadline)
            if answer["session"] == NO_SESSION:
                slot.none_until = float("inf")
            else:
                session = Session(partition, answer["session"], answer["generation"])
        except SessionRefused:
            slot.none_until = self._seconds() + WITHOUT_SECONDS
        finally:
            # Whoever opens it sends first, then those that wait, in their order; then all others.
            self._reactor.callLater(0, self._tell, slot, session)
        return session

    def _tell(self, slot: Slot, session: Session | None) -> None:
        """Have those go on who wait. If there is no session the first of them tries: with its own
        key, and until its own deadline."""
        slot.is_opening = False
        if session is not None and not session.is_over:
            slot.session = session
        while slot.waiting and not slot.is_opening:
            waiting = slot.waiting.popleft()
            if not waiting.called:  # else it has given up
                waiting.callback(None)

    async def _in_time(self, waiting: Deferred[Any], deadline: float, why: str) -> Any:
        """What *waiting* comes to.

        :raises NotSent: when that is not in time; it says *why*.
        """
        try:
            left_seconds = max(0.0, deadline - self._seconds())
            return await waiting.addTimeout(left_seconds, self._reactor)
        except TimeoutError as error:
            raise NotSent(why) from error


class Ticket:
    """A write's place in a session, from one attempt to the next.

    :ivar is_unknown: whether an attempt may have been carried out.
    """

    __slots__ = ("_seq", "_session", "_sessions", "is_unknown")

    def __init__(self, sessions: Sessions, session: Session | None = None, seq: int = 0) -> None:
        self._sessions = sessions
        self._session = session
        self._seq = seq
        self.is_unknown = False

    async def prepare(self, partition: int, key: bytes, deadline: float) -> bytes | None:
        """What the next attempt carries; ``None``: nothing, and there can be no other after it.

        :raises KvtwistError: when there is no session, or no room in it, in time.
        """
        if self._session is None:
            begun = await self._sessions.begun(partition, key, 1, deadline)
            if begun is not None:
                self._session, self._seq = begun
        return self.once()

    def once(self) -> bytes | None:
        """What an attempt carries."""
        return None if self._session is None else self._session.once(self._seq)

    def end(self) -> None:
        """The write is over, or has left the session."""
        session, self._session = self._session, None
        if session is not None:
            session.end(self._seq)

    def weighed(self, command: type[amp.Command], error: KvtwistError) -> KvtwistError:
        """*error*, if the write may be sent again after it; else it is raised, or what it means.

        An error speaks of one attempt; what may have become of those before is weighed here.
        """
        session = self._session
        if session is None:
            if not (isinstance(error, WrongGeneration) or may_be_sent_again(command, error)):
                raise error
        elif isinstance(error, OutcomeUnknown):
            self.is_unknown = True
        elif isinstance(error, WrongGeneration):
            said: Any = error  # whatever a node says: where this is compiled, an int is believed
            if type(said.generation) is int and 0 <= said.generation <= U64_MAX:
                session.generation = said.generation
        elif not may_be_sent_again(command, error, is_once=True):
            if isinstance(error, SessionRefused):
                self._sessions.lose(session)
                self.end()
            if self.is_unknown and not isinstance(error, UNFIT):
                raise OutcomeUnknown(
                    f"an attempt got no answer, and its fate is unknown; the next one: {error}"
                ) from error
            if not isinstance(error, SessionRefused):
                raise error
        return error
