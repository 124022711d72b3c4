"""What a node holds for all its connections together, and who gives way when it is too much.

Each connection is bounded for itself, but a thousand of them may each hold an unfinished box. They
say what they hold whenever it changes; over the limit connections are dropped until it is kept
again: of the address that holds the most the connection that holds the most. So somebody with many
connections is no better off than somebody with one, and nobody has to give way for what others
hold, unless all hold alike.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol


class Holder(Protocol):
    """A connection."""

    def drop(self, why: str, detail: str = "") -> None:
        """End it at once; it holds nothing any more."""


class Budget:
    """The bytes that connections hold.

    :ivar held_bytes: all together.

    **Invariant:** after each call `held_bytes` is at most the limit.
    """

    def __init__(self, held_bytes_max: int) -> None:
        self._held_bytes_max = held_bytes_max
        self.held_bytes = 0
        self._by_address: Counter[str] = Counter()
        self._held: dict[str, dict[Holder, int]] = {}

    def account(self, holder: Holder, address: str, held_bytes: int) -> None:
        """*holder* holds so much now; 0 when it is gone."""
        self._set(holder, address, held_bytes)
        while self.held_bytes > self._held_bytes_max:
            self._give_way()

    def _set(self, holder: Holder, address: str, held_bytes: int) -> None:
        holders = self._held.setdefault(address, {})
        more_bytes = held_bytes - holders.get(holder, 0)
        if held_bytes:
            holders[holder] = held_bytes
        else:
            holders.pop(holder, None)
        self.held_bytes += more_bytes
        self._by_address[address] += more_bytes
        if not holders:
            del self._held[address], self._by_address[address]

    def _give_way(self) -> None:
        address = max(self._by_address, key=self._by_address.__getitem__)
        holders = self._held[address]
        largest = max(holders, key=holders.__getitem__)
        share_bytes = holders[largest]
        self._set(largest, address, 0)
        largest.drop(
            f"over held_bytes_max={self._held_bytes_max} on all connections: "
            f"this one held the most of {address or 'its address'}, {share_bytes:,} bytes"
        )
