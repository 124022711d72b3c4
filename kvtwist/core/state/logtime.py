"""Log time: the leader's side of a group's clock.

A group's clock counts milliseconds in its state machine, and moves only with applied entries: each
carries a stamp, and the machine keeps the highest. Wall clocks take no part in it, and time without
a leader does not count: nothing expires because nobody was there to renew it.

In: the leader's monotonic clock, in seconds, and the log time of what it has applied. Out: stamps.
When nobody writes, log time stands: the leader proposes an `Expire` once its stamp has come to the
state machine's ``next_due_ms``.
"""

from __future__ import annotations


class LogClock:
    """The stamps of one leader, for one term.

    :param log_time_ms: of the state machine, when this node became leader.
    :param now_seconds: its monotonic clock then.

    **Invariant:** stamps never fall, even if the clock given does.
    """

    __slots__ = ("_base_ms", "_base_seconds", "_latest_ms")

    def __init__(self, log_time_ms: int, now_seconds: float) -> None:
        self._base_ms = self._latest_ms = log_time_ms
        self._base_seconds = now_seconds

    def stamp_ms(self, now_seconds: float) -> int:
        """The stamp of an entry that is proposed now."""
        elapsed_ms = int((now_seconds - self._base_seconds) * 1000)
        self._latest_ms = max(self._latest_ms, self._base_ms + elapsed_ms)
        return self._latest_ms

    def applied(self, log_time_ms: int, now_seconds: float) -> None:
        """The state machine has come to *log_time_ms*.

        A new leader has entries of the one before that it has not applied yet, and their stamps may
        be above its own. It goes on from them; else the group's clock would stand until the
        leader's had caught up.
        """
        if log_time_ms > self.stamp_ms(now_seconds):
            self._base_ms = self._latest_ms = log_time_ms
            self._base_seconds = now_seconds
