"""The sessions of a partition: what makes a client's retries safe.

In: for each write that carries a session, (session, seq, lowest unanswered seq) and the log time.
Out: whether to apply it (`Sessions.admit`), or the answer that it has already. After it was applied
its answer is handed in (`Sessions.keep`). As in RIFL (Lee et al., "Implementing linearizability at
large scale and low latency", SOSP 2015): an answer is kept until the client says that it has it.

Rule 1: a seq is applied at most once. At or above the mark its answer is kept; below, the write is
refused.

Rule 2: a session that is not there is never made by a write. A request may have sat in a frozen
node's socket for longer than the session lived (C6).

Rule 3: nothing but the log ends a session, and no replica's own settings matter (R17): how long
it may be idle stands in the entry that opened it, the bounds stand here.

Bounds: `SESSIONS_MAX` sessions; `ANSWERS_MAX` answers of each, without values; `KEPT_MAX` of all.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from kvtwist.core.state.answers import (
    BelowMark,
    BeyondWindow,
    NotWritten,
    TooManyAnswers,
    TooManySessions,
    UnknownSession,
    WriteAnswer,
    Written,
)
from kvtwist.core.state.fields import U64_MAX
from kvtwist.core.state.outcomes import without_values

ANSWERS_MAX = 1024
"""Answers that one session keeps, which is how far a seq may be above the mark."""

SESSIONS_MAX = 4096

KEPT_MAX = 1 << 20
"""Answers that all sessions keep together, and the parts that they are made of: 130 MB at most."""

IDLE_MS_MAX: Final = 24 * 3600 * 1000
"""However long a session asks to live without writing."""


class Session:
    """What is remembered of one client.

    :ivar id: the index of the entry that opened it.
    :ivar idle_ms: how long it lives without writing.
    :ivar expires_at_ms: the log time from which on it counts as gone.
    :ivar mark: the lowest seq that the client may still ask about.
    :ivar answers: by seq.
    :ivar epoch: at which freeze this copy was made.

    **Invariant:** mark <= every seq < mark + `ANSWERS_MAX`.
    """

    __slots__ = ("answers", "epoch", "expires_at_ms", "id", "idle_ms", "mark")

    def __init__(
        self, id: int, idle_ms: int, expires_at_ms: int, mark: int, epoch: int = 0
    ) -> None:
        self.id = id
        self.idle_ms = idle_ms
        self.expires_at_ms = expires_at_ms
        self.mark = mark
        self.epoch = epoch
        self.answers: dict[int, WriteAnswer] = {}

    def raise_mark(self, mark: int) -> int:
        """Forget the answers below *mark*, which never falls; the weight of what was forgotten."""
        if mark <= self.mark:
            return 0
        forgotten = 0
        if mark - self.mark <= len(self.answers):
            for seq in range(self.mark, mark):
                forgotten += self._forget(seq)
        else:  # A client may skip any number of seqs, so walk through what there is.
            for seq in [seq for seq in self.answers if seq < mark]:
                forgotten += self._forget(seq)
        self.mark = mark
        return forgotten

    def _forget(self, seq: int) -> int:
        answer = self.answers.get(seq)
        if answer is None:
            return 0
        del self.answers[seq]
        return weight(answer)

    @property
    def weight(self) -> int:
        """Of all its answers."""
        return sum(map(weight, self.answers.values()))

    def copy(self, epoch: int) -> Session:
        """One of our own, in place of one that a frozen view has."""
        copied = Session(self.id, self.idle_ms, self.expires_at_ms, self.mark, epoch)
        copied.answers = self.answers.copy()
        return copied


class Sessions:
    """The sessions of a partition.

    **Invariant:** a session whose epoch is not ``_epoch`` is never changed: a frozen view has it.

    **Invariant:** ``_kept`` is the weight of all sessions.
    """

    __slots__ = ("_epoch", "_kept", "_sessions")

    def __init__(self, sessions: Iterable[Session] = ()) -> None:
        self._epoch = 0
        self._sessions = {session.id: session for session in sessions}
        self._kept = sum(session.weight for session in self._sessions.values())

    def __len__(self) -> int:
        return len(self._sessions)

    def ids(self) -> Iterable[int]:
        """Of all sessions."""
        return self._sessions.keys()

    def find(self, id: int) -> Session | None:
        """The session, if it is there; one that is due is, until it is removed."""
        return self._sessions.get(id)

    def open(self, id: int, idle_ms: int, now_ms: int) -> TooManySessions | None:
        """Begin a session, if there is room."""
        if len(self._sessions) >= SESSIONS_MAX:
            return TooManySessions(SESSIONS_MAX)
        idle_ms = min(idle_ms, IDLE_MS_MAX)
        self._sessions[id] = Session(id, idle_ms, _end(now_ms, idle_ms), 0, self._epoch)
        return None

    def close(self, id: int, now_ms: int) -> UnknownSession | None:
        """End a session, if there is one."""
        session = self._sessions.get(id)
        if session is None or session.expires_at_ms <= now_ms:
            return UnknownSession(id)
        self.remove([session])
        return None

    def admit(
        self, id: int, seq: int, lowest_unanswered: int, now_ms: int
    ) -> Session | WriteAnswer | UnknownSession | BelowMark | BeyondWindow | TooManyAnswers:
        """The session, if the write is to be applied; else its answer.

        Whatever the answer, the session was used, and knows the mark.
        """
        session = self._sessions.get(id)
        # One that is due counts as gone, whether or not an entry has removed it yet.
        if session is None or session.expires_at_ms <= now_ms:
            return UnknownSession(id)
        if session.epoch != self._epoch:
            session = self._sessions[id] = session.copy(self._epoch)
        session.expires_at_ms = _end(now_ms, session.idle_ms)
        self._kept -= session.raise_mark(lowest_unanswered)
        if seq < session.mark:
            return BelowMark(seq, session.mark)
        if answer := session.answers.get(seq):
            return answer
        if seq >= session.mark + ANSWERS_MAX:
            return BeyondWindow(seq, session.mark)
        if self._kept >= KEPT_MAX:
            return TooManyAnswers(KEPT_MAX)
        return session

    def keep(self, session: Session, seq: int, answer: WriteAnswer) -> None:
        """Remember the answer to a write that was admitted."""
        answer = session.answers[seq] = without_values_of(answer)
        self._kept += weight(answer)

    def due(self, until_ms: int) -> list[Session]:
        """The sessions that are due at that log time, the longest due first."""
        # All are looked at. An index would be kept up with every write; this is paid once for
        # each entry that expires.
        due = [each for each in self._sessions.values() if each.expires_at_ms <= until_ms]
        return sorted(due, key=lambda each: (each.expires_at_ms, each.id))

    def remove(self, sessions: Iterable[Session]) -> None:
        """End these."""
        for session in sessions:
            del self._sessions[session.id]
            self._kept -= session.weight

    def next_due_ms(self) -> int | None:
        """The log time at which the next one is due."""
        return min((each.expires_at_ms for each in self._sessions.values()), default=None)

    def freeze(self) -> list[Session]:
        """The sessions as they are now, by id. They must not be changed."""
        self._epoch += 1
        return [self._sessions[id] for id in sorted(self._sessions)]


def without_values_of(answer: WriteAnswer) -> WriteAnswer:
    """What is kept of *answer*: all but values, which may be large."""
    if isinstance(answer, Written):
        results = without_values(answer.results)
        return answer if results is answer.results else Written(results)
    failures = without_values(answer.failures)
    return answer if failures is answer.failures else NotWritten(failures)


def weight(answer: WriteAnswer) -> int:
    """What an answer counts of `KEPT_MAX`: one, and one for each of its parts."""
    return 1 + len(answer.results if isinstance(answer, Written) else answer.failures)


def _end(now_ms: int, idle_ms: int) -> int:
    return min(now_ms + idle_ms, U64_MAX)
