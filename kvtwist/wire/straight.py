"""Straight to the socket, where Twisted's transport would first ask the reactor for it.

A TCP transport that has nothing to send, and is given something, asks the reactor when its socket
can be written to, which it can, and later lets go of it again: three system calls and a turn of the
reactor for each burst of answers. Who knows that nothing stands before these bytes can write them.

What is known of the transport is Twisted's own: ``writeSomeData`` is public, what waits stands in
``dataBuffer`` and, not joined yet, in the private ``_tempDataBuffer``. A transport without them, or
of another kind, is given its bytes the ordinary way; the tests say when a release of Twisted has
changed them.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import tcp

STRAIGHT_BYTES_MAX = 1 << 16
"""What the socket leaves of the bytes is copied: of longer ones that is too much."""


def write_straight(transport: Any, data: bytes) -> bytes:
    """Have the socket of *transport* take *data*, if nothing stands before it.

    :return: what the socket has not taken, for ``transport.write``: all, mostly nothing.
    """
    if (
        not isinstance(transport, tcp.Connection)
        or getattr(transport, "_tempDataBuffer", True)
        or getattr(transport, "dataBuffer", True)
        or transport.TLS
        or not transport.connected
        or transport.disconnecting
        or len(data) > STRAIGHT_BYTES_MAX
    ):
        return data
    sent = transport.writeSomeData(data)
    if not isinstance(sent, int):
        return data  # the connection is lost, which the transport will find out in its turn
    return data[sent:]
