"""Clients: each asks one thing at a time, and writes down what it was told.

A client with a session repeats a write until it has an answer or runs out of time: (session, seq)
makes that safe. One without never repeats a write that may have arrived (C1, C3). What ends without
an answer is recorded as *unknown*, unless nobody can have taken it up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from enum import Enum
from random import Random

from kvtwist.core.raft import Dropped
from kvtwist.core.state.answers import SessionOpened, UnknownSession
from tests.linearizability.history import Kind, Recorder
from tests.sim.machine import Request, Said, opening, said, writing
from tests.sim.member import Member
from tests.sim.network import Network
from tests.sim.plan import Plan
from tests.sim.schedule import TICK, Schedule
from tests.sim.trace import Trace
from tests.sim.watch import Lost

DEADLINE_TICKS = 60
ATTEMPT_TICKS = 12

_KINDS = (
    *[Kind.GET] * 5,
    *[Kind.PUT] * 3,
    *[Kind.COMPARE_AND_SET] * 3,
    *[Kind.INCREMENT] * 3,
    Kind.PUT_IF_ABSENT,
    Kind.DELETE,
)


class End(Enum):
    """How an operation has ended."""

    ANSWERED = "answered"
    NOT_DONE = "not done"
    UNKNOWN = "unknown"


class Client:
    """A client.

    :param members: those it may ask, now.
    :param has_sessions: whether it makes its writes safe to repeat.
    :ivar ends: how its operations have ended.
    :ivar is_busy: whether one is under way.
    :ivar rests: it begins nothing new by itself.
    """

    def __init__(
        self,
        name: str,
        plan: Plan,
        schedule: Schedule,
        random: Random,
        trace: Trace,
        network: Network,
        recorder: Recorder,
        members: Callable[[], list[Member]],
        has_sessions: bool,
        idle_ms: int,
    ) -> None:
        self.name = name
        self.ends: Counter[End] = Counter()
        self.is_busy = False
        self.rests = False
        self._plan = plan
        self._schedule = schedule
        self._random = random
        self._trace = trace
        self._network = network
        self._recorder = recorder
        self._members = members
        self._has_sessions = has_sessions
        self._idle_ms = idle_ms
        self._session = 0
        self._seq = 0
        self._known_leader = 0
        self._silent = 0
        self._versions: dict[bytes, int] = {}
        self._number = 0
        self._request: Request | None = None
        self._ticket = 0
        self._attempt = 0
        self._open: set[int] = set()
        self._values = 0

    # -- beginning and ending -----------------------------------------------------------------

    def think(self) -> None:
        """Do the next thing after a pause."""
        pause = 1 + self._random.randrange(self._plan.think_ticks * TICK)
        self._schedule.after(pause, self._begin_if_idle)

    def _begin_if_idle(self) -> None:
        if self.is_busy or self.rests:
            return
        if self._has_sessions and not self._session:
            self.begin(None)
        else:
            self.begin(self._draw())

    def _draw(self) -> Request:
        kind = self._random.choice(_KINDS)
        key = b"k%d" % self._random.randrange(self._plan.keys)
        match kind:
            case Kind.GET:
                return Request(kind, key)
            case Kind.INCREMENT:
                return Request(kind, key, amount=self._random.randrange(1, 10))
            case Kind.DELETE:
                return Request(kind, key)
            case Kind.COMPARE_AND_SET:
                return Request(kind, key, self.new_value(), self._versions.get(key, 0))
        return Request(kind, key, self.new_value())

    def new_value(self) -> bytes:
        """One that nobody has written yet; often a number, so that it can be incremented."""
        self._values += 1
        if self._random.random() < 0.7:
            return b"%d" % (int(self.name[1:]) * 100_000 + self._values * 100)
        return b"%s:%d" % (self.name.encode(), self._values)

    def begin(self, request: Request | None) -> None:
        """Ask for *request*; ``None``: for a session."""
        assert not self.is_busy
        self.is_busy = True
        self._number += 1
        self._request = request
        self._open.clear()
        self._attempt = 0
        if request is not None:
            self._ticket = self._recorder.begin(
                self.name,
                request.kind,
                request.key,
                at=self._moment(),
                value=request.value,
                version=request.version,
                amount=request.amount,
            )
            self._trace.add("ask", 0, int(self.name[1:]), self._number, request)
        self._schedule.after(DEADLINE_TICKS * TICK, self._give_up, self._number)
        self._try()

    def begin_last(self, kind: Kind | None) -> None:
        """Ask for something of this kind, at once; ``None``: for a new session."""
        if kind is None:
            self._has_sessions, self._session, self._idle_ms = True, 0, 1 << 40
            self.begin(None)
        else:
            self.begin(Request(kind, b"k0", self.new_value() if kind is Kind.PUT else None))

    def _moment(self) -> int:
        """Numbers the events, so that no two of them are at once."""
        return len(self._trace.events)

    def _give_up(self, number: int) -> None:
        if self.is_busy and number == self._number:
            self._end(End.UNKNOWN if self._open else End.NOT_DONE)

    def _end(self, end: End, answer: Said | None = None) -> None:
        self.is_busy = False
        request = self._request
        self._trace.add("told", 0, int(self.name[1:]), self._number, answer or end.value)
        self.ends[end] += 1
        if request is not None:
            if request.kind is not Kind.GET and self._has_sessions:
                self._seq += 1
            self._record(request, end, answer)
        self.think()

    def _record(self, request: Request, end: End, answer: Said | None) -> None:
        at = self._moment()
        if answer is not None:
            self._recorder.answered(
                self._ticket,
                at=at,
                done=answer.done,
                version=answer.version,
                value=answer.value,
            )
            if answer.version is not None:
                self._versions[request.key] = answer.version
        elif end is End.NOT_DONE:
            self._recorder.not_done(self._ticket, at=at)
        else:
            self._recorder.unknown(self._ticket, at=at)

    # -- attempts -----------------------------------------------------------------------------

    def _try(self) -> None:
        """Ask somebody."""
        self._attempt += 1
        number, attempt = self._number, self._attempt
        self._schedule.after(ATTEMPT_TICKS * TICK, self._try_again, number, attempt)
        member = self._choose()
        self._silent = member.replica if member is not None else 0
        if member is not None and not self._is_lost():
            # It arrives even if the client has given up meanwhile.
            ask = self._question(number, attempt)
            self._open.add(attempt)
            self._schedule.after(self._delay(), ask, member)

    def _question(self, number: int, attempt: int) -> Callable[[Member], None]:
        """What an attempt does when it arrives."""
        request, session, seq, idle_ms = self._request, self._session, self._seq, self._idle_ms

        def reply(what: object) -> None:
            if not self._is_lost():
                self._schedule.after(self._delay(), self._hear, number, attempt, what)

        def ask(member: Member) -> None:
            if request is None:
                member.write(lambda stamp_ms: opening(stamp_ms, idle_ms), reply)
            elif request.kind is Kind.GET:
                member.read(request.key, reply)
            else:
                member.write(lambda stamp_ms: writing(stamp_ms, request, session, seq, seq), reply)

        return ask

    def _choose(self) -> Member | None:
        members = self._members()
        if self.rests and len(members) > 1:
            # In the last round there must be an answer: do not wait for the same silent one again.
            members = [each for each in members if each.replica != self._silent]
        if not members:
            return None
        is_read = self._request is not None and self._request.kind is Kind.GET
        if is_read and self._random.random() < 0.5:
            return self._random.choice(members)
        for member in members:
            if member.replica == self._known_leader:
                return member
        return self._random.choice(members)

    def _delay(self) -> int:
        return 1 + self._random.randrange(TICK)

    def _is_lost(self) -> bool:
        return self._random.random() < self._network.links.loss / 2

    def _hear(self, number: int, attempt: int, what: object) -> None:
        """An answer, to this attempt or to an earlier one."""
        if number != self._number or not self.is_busy:
            return
        request = self._request
        if isinstance(what, Said):
            self._end(End.ANSWERED, what)
        elif isinstance(what, Dropped):
            self._known_leader = what.leader
            self._was_not_done(number, attempt)
        elif what is Lost.NOT_DONE:
            self._was_not_done(number, attempt)
        elif what is Lost.UNKNOWN:
            self._known_leader = 0
            self._try_again(number, attempt)
        elif request is None:
            if isinstance(what, SessionOpened):
                self._session, self._seq = what.session, 0
                self._end(End.ANSWERED)
        else:
            self._hear_answer(what)

    def _hear_answer(self, what: object) -> None:
        told = said(what)  # type: ignore[arg-type]
        if told is not None:
            self._end(End.ANSWERED, told)
            return
        if isinstance(what, UnknownSession):
            self._session = 0
        self._end(End.UNKNOWN)

    def _was_not_done(self, number: int, attempt: int) -> None:
        """This attempt, which nobody took up, or whose entry another one has replaced."""
        self._open.discard(attempt)
        pause = 1 + self._random.randrange(2 * TICK)
        self._schedule.after(pause, self._try_if_latest, number, attempt)

    def _try_again(self, number: int, attempt: int) -> None:
        """Nothing was heard for a while, or nothing certain."""
        if number == self._number and attempt == self._attempt:
            self._known_leader = 0
            self._try_if_latest(number, attempt)

    def _try_if_latest(self, number: int, attempt: int) -> None:
        if not self.is_busy or number != self._number or attempt != self._attempt:
            return
        request = self._request
        is_read = request is None or request.kind is Kind.GET
        if is_read or self._session or not self._open:
            self._try()
        # Else it may have been done, and must not be done twice: wait for the answer.
