"""Fuzzes what reads bytes from strangers: the box reader, the codecs, a whole connection.

    python -m tests.fuzz.wire [seconds]

Guided by coverage where atheris is installed (``pip install atheris``), else by random changes of
valid streams. Four things must hold for any bytes, cut into any chunks:

* the reader gives the same boxes as a naive second reader, or `FramingError` where that one does;
* what it holds is no more than its limits and the chunk;
* a connection of a node answers, or drops itself, and raises nothing;
* what Raft messages are read from is refused, or is exactly what these messages are written as.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from typing import Any
from zlib import crc32

from twisted.internet.testing import StringTransport
from twisted.logger import ILogObserver, LogLevel, globalLogPublisher
from zope.interface import implementer

from kvtwist.core.raft import Configuration, Entry, EntryKind, Snapshot
from kvtwist.core.raft.messages import AppendRequest, AppendResponse, Heartbeat, InstallSnapshot
from kvtwist.errors import MalformedRequest
from kvtwist.wire.boxes import (
    COMMAND,
    BoxLimits,
    BoxReader,
    FramingError,
    OversizedBox,
    write_box,
)
from kvtwist.wire.codec import codec_of
from kvtwist.wire.commands import COMMANDS, Get, Put, RaftMessages
from kvtwist.wire.raft import read_messages, write_messages
from tests.cluster import SimulatedCluster

_SNAPSHOT = Snapshot(7, 3, Configuration((1, 2), (3,)), b"state")
_ENTRIES = (Entry(7, 3, data=b"d" * 20), Entry(8, 4, EntryKind.NOOP))
(RAFT,) = write_messages(
    [
        (2, Heartbeat(1, 2, 4, 6)),
        (3, AppendRequest(1, 2, 4, 6, 3, _ENTRIES, 6)),
        (4, InstallSnapshot(1, 2, 4, _SNAPSHOT)),
        (5, AppendResponse(2, 1, 4, 8)),
    ]
)
LIMITS = BoxLimits(box_bytes_max=4096, box_pairs_max=32)
SECONDS_DEFAULT = 600.0


def naive_boxes(data: bytes) -> tuple[list[dict[bytes, bytes]], bool]:
    """The boxes in *data*, and whether it breaks the format after them."""
    boxes: list[dict[bytes, bytes]] = []
    box: dict[bytes, bytes] = {}
    while len(data) >= 2:
        size = int.from_bytes(data[:2], "big")
        if size > 255:
            return boxes, True
        if size == 0:
            boxes.append(box)
            box, data = {}, data[2:]
            continue
        key, rest = data[2 : 2 + size], data[2 + size :]
        length = int.from_bytes(rest[:2], "big")
        if len(key) < size or len(rest) < 2 + length:
            break
        box[key] = rest[2 : 2 + length]
        data = rest[2 + length :]
    return boxes, False


def check_reader(data: bytes, cuts: list[int]) -> None:
    """The reader against the naive one."""
    reader = BoxReader(LIMITS)
    boxes: list[dict[bytes, bytes]] = []
    broken = False
    try:
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            boxes += reader.feed(data[start:end])
    except FramingError:
        broken = True
    expected, expected_broken = naive_boxes(data)
    assert broken == expected_broken, (data, cuts)
    if not broken:
        assert len(boxes) == len(expected), (data, cuts)
    for seen, wanted in zip(boxes, expected, strict=False):
        if isinstance(seen, OversizedBox):
            assert seen.items() <= wanted.items()
            assert len(seen) <= 6
        else:
            assert seen == wanted, (data, cuts)


def check_messages(payload: bytes) -> None:
    """Raft messages, as they are and with a checksum that is right."""
    for data in (payload, crc32(payload[4:]).to_bytes(4, "big") + payload[4:]):
        try:
            messages = read_messages(data)
        except MalformedRequest:
            continue
        assert b"".join(write_messages(messages)) == data, data


@implementer(ILogObserver)
class _BugObserver:
    """Collects what the log calls critical: a responder's bug is answered, and logged."""

    def __init__(self, bugs: list[Any]) -> None:
        self._bugs = bugs

    def __call__(self, event: dict[str, Any]) -> None:
        if event["log_level"] is LogLevel.critical:
            self._bugs.append(event)


class FuzzedNode:
    """A node of a cluster of one, in memory; each input goes to a connection of its own."""

    def __init__(self) -> None:
        cluster = SimulatedCluster(1)
        cluster.found()
        self.clock = cluster.network.clock
        self.server = cluster.nodes[1].server
        self.bugs: list[Any] = []
        globalLogPublisher.addObserver(_BugObserver(self.bugs))

    def check(self, data: bytes, cuts: list[int]) -> None:
        """Nothing is raised, and no bug is logged."""
        connection = self.server.buildProtocol(None)
        assert connection is not None
        transport = StringTransport()
        connection.makeConnection(transport)
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            if transport.disconnecting or transport.disconnected:
                break
            connection.dataReceived(data[start:end])
            transport.clear()
        connection.connectionLost()
        self.clock.advance(1.0)
        assert not self.bugs, (data, cuts, self.bugs)


def valid_streams(chance: random.Random) -> Iterator[bytes]:
    """Requests that make sense, to start from."""
    values: dict[str, Any] = {
        "key": b"k", "value": b"v" * 40, "version": 3, "timeout_ms": 1000, "forwarded": False,
        "keys": [b"a", b"b"], "values": [b"1", b"2"], "version_min": 1, "version_max": 1,
        "cluster_id": "", "name": "n", "identity": "i", "address": ":1", "expected_identity": "",
        "started_ms": 1, "features": ["x"], "auth": b"", "trace": b"t", "keyspace": 0,
        "partition": 0, "backup": 1, "number": 0, "last": True,
        "cluster": b"c" * 16, "messages": RAFT, "willing": True,
        "first": 2, "count": 5, "transfer": 1,
        "delta": -3, "idle_ms": 1000, "once": bytes(32), "onces": bytes(64),
        "group": 2, "sender": 1, "to": 2, "term": 3, "index": 9, "snapshot_term": 2,
        "configuration": Configuration((1, 2, 3)).encode(),
        "piece": write_box({COMMAND: b"Get", b"key": b"k"}),
    }  # fmt: skip
    frequent = {name: values[name] for name in ("key", "value", "timeout_ms")}
    told = {name: values[name] for name in ("cluster", "messages", "willing")}
    while True:
        kind, count = chance.randrange(5), chance.randint(1, 4)
        if kind == 0:
            yield bytes(codec_of(RaftMessages).notice(told)) * count
            continue
        if kind < 3:
            commands, said = chance.choices(COMMANDS, k=count), values
        else:
            commands, said = chance.choices((Get, Put), k=count), frequent
        yield b"".join(codec_of(each).write_request(b"1", said) for each in commands)


def changed(data: bytes, chance: random.Random) -> bytes:
    """*data* with some bytes set, cut out, doubled or put in."""
    changing = bytearray(data)
    for _ in range(chance.randint(0, 6)):
        at = chance.randrange(len(changing) + 1)
        kind = chance.randrange(4)
        if kind == 0 and at < len(changing):
            changing[at] = chance.choice((0, 1, 255, chance.randrange(256)))
        elif kind == 1:
            del changing[at : at + chance.randint(1, 8)]
        elif kind == 2:
            changing[at:at] = changing[at : at + chance.randint(1, 64)]
        else:
            extra = write_box(
                {bytes([chance.randrange(1, 256)]): chance.randbytes(chance.randrange(99))}
            )
            changing[at:at] = extra
    return bytes(changing)


def cuts_in(data: bytes, chance: random.Random) -> list[int]:
    """Where to cut the stream."""
    return sorted(chance.randrange(len(data) + 1) for _ in range(chance.randint(0, 8)))


def run_random(seconds: float, seed: int, inputs_max: float = float("inf")) -> int:
    """Random inputs for *seconds*, or so many; how many."""
    chance = random.Random(seed)
    node = FuzzedNode()
    streams = valid_streams(chance)
    end = time.monotonic() + seconds
    inputs = 0
    while time.monotonic() < end and inputs < inputs_max:
        data = changed(next(streams), chance) if chance.random() < 0.9 else chance.randbytes(200)
        cuts = cuts_in(data, chance)
        check_reader(data, cuts)
        check_messages(changed(RAFT, chance))
        node.check(data, cuts)
        inputs += 1
    return inputs


def run_guided(seconds: float) -> None:
    """Inputs guided by coverage; atheris ends the process."""
    import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore]

    node = FuzzedNode()

    def one(raw: bytes) -> None:
        chance = random.Random(len(raw))
        cuts = cuts_in(raw, chance)
        check_reader(raw, cuts)
        check_messages(raw)
        node.check(raw, cuts)

    atheris.instrument_all()
    atheris.Setup([sys.argv[0], f"-max_total_time={int(seconds)}", "-max_len=4096"], one)
    atheris.Fuzz()


def main() -> None:
    """Fuzz."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS_DEFAULT
    try:
        import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore] # noqa: F401
    except ImportError:
        seed = int(time.time())
        print(f"no atheris here: random changes for {seconds:g} s, seed {seed}")
        print(f"{run_random(seconds, seed):,} inputs, none escaped")
    else:
        run_guided(seconds)


if __name__ == "__main__":
    main()
