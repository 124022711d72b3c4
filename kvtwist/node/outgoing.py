"""A partition's data at one moment, read from the store piece by piece.

It holds a view of the store, which pins room on the disk: whoever has one must `Outgoing.close` it
soon (S5).
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from kvtwist.errors import StorageError, Unavailable
from kvtwist.storage.engine import Engine, View
from kvtwist.storage.snapshots import outgoing
from kvtwist.storage.states import load_header
from kvtwist.storage.store import Store

_CUT_BYTES = 128 << 10
_CUTS_PER_PIECE = 4
PIECE_BYTES_MAX = _CUT_BYTES * _CUTS_PER_PIECE


class Outgoing:
    """Made by `opened`.

    :ivar header: of the state that is read.
    """

    def __init__(self, store: Store, engine: Engine, group: int) -> None:
        """On the store's thread."""
        self._store = store
        self._views = ExitStack()
        view = self._views.enter_context(engine.view())
        header = load_header(group, view)
        if header is None:
            raise Unavailable(f"group {group} has no state here")
        self.header = header
        self._pieces: Generator[tuple[bytes, bool], None, None] | None = self._read(view, group)

    def _read(self, view: View, group: int) -> Generator[tuple[bytes, bool], None, None]:
        snapshot = outgoing(view, group)
        assert snapshot is not None, "its header was there"
        cuts, gathered = snapshot.chunks(_CUT_BYTES), []
        for cut in cuts:
            gathered.append(cut)
            if len(gathered) == _CUTS_PER_PIECE:
                yield b"".join(gathered), False
                gathered = []
        yield b"".join(gathered), True

    def read(self) -> Deferred[tuple[bytes, bool]]:
        """The next piece, and whether it is the last. To be asked for one after the other.

        Fails with `StorageError` when the disk does, or has not what was written.
        """
        return self._store.read(lambda _: self._next())

    def _next(self) -> tuple[bytes, bool]:
        assert self._pieces is not None, "it is closed"
        return next(self._pieces)

    def close(self) -> None:
        """Give the view up, after the piece that is being read."""
        closed = self._store.read(lambda _: self._close())
        closed.addErrback(self._drop)

    def _drop(self, failure: Failure) -> None:
        """The store takes no more jobs, and may still be at the last one."""
        failure.trap(StorageError)
        self._pieces = None

    def _close(self) -> None:
        """All that refers to the view has to go: its engine counts references."""
        pieces, self._pieces = self._pieces, None
        if pieces is not None:
            pieces.close()
        self._views.close()


def opened(store: Store, group: int) -> Deferred[Outgoing]:
    """What the store has of *group* now."""
    return store.read(lambda engine: Outgoing(store, engine, group))
