"""Peers that mean harm, against a real node: memory stays bounded and others are served (T5)."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.wire.boxes import ASK, COMMAND, pair, write_box
from kvtwist.wire.fragments import cut
from tests.processes.nodes import TWISTD, Processes

GROWTH_BYTES_MAX = 64 << 20
ATTACK_BYTES = 256 << 20
ATTACK_SECONDS_MAX = 15.0
CONNECTIONS = 100
UNFINISHED_BYTES = 8 << 20
HELD_BYTES_MAX = 64 << 20
"""With 100 connections of 8 MiB each, an eleventh of what they hold if nobody counts."""


class AttackTests(SynchronousTestCase):
    """One node, an attacker, and somebody else who wants to be served."""

    def setUp(self) -> None:
        self.processes = Processes(nodes=1)
        self.addCleanup(self.processes.close)
        self.port = self.processes.ports[0]
        options = (f"--addr=:{self.port}", f"--held-bytes-max={HELD_BYTES_MAX}")
        self.node = self.processes.run((*TWISTD, "-n", "kvnode", *options), "node")
        self.node.wait_for("founded cluster")
        self.serve()
        self.before_bytes = self.resident_bytes()

    def resident_bytes(self) -> int:
        """The node's memory."""
        status = Path(f"/proc/{self.node.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found.group(1)) << 10

    def serve(self) -> None:
        """Somebody else puts and gets."""
        self.assertEqual(self.processes.kvcli("put", "k", "v").returncode, 0)
        self.assertEqual(self.processes.kvcli("get", "k").stdout, b"v\n")

    def attack(self, *attackers: Callable[[socket.socket], object]) -> int:
        """Run *attackers*, each on a connection of its own, while others are served; the most
        memory that the node has taken meanwhile, beyond what it had."""
        threads = [threading.Thread(target=self.run_attacker, args=(one,)) for one in attackers]
        for thread in threads:
            thread.start()
        most = 0
        end = time.monotonic() + ATTACK_SECONDS_MAX
        while any(thread.is_alive() for thread in threads) and time.monotonic() < end:
            most = max(most, self.resident_bytes())
            self.serve()
        for thread in threads:
            thread.join()
        self.serve()
        return max(most, self.resident_bytes()) - self.before_bytes

    def run_attacker(self, attacker: Callable[[socket.socket], object]) -> None:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), timeout=5) as peer,
        ):
            attacker(peer)

    def test_one_endless_box(self) -> None:
        """Else one connection that never ends its box takes all memory."""
        sent = []

        def endless(peer: socket.socket) -> None:
            for at in range(ATTACK_BYTES // 65_000):
                peer.sendall(pair(b"%d" % at, b"x" * 65_000))
                sent.append(65_000)

        self.assertLess(self.attack(endless), GROWTH_BYTES_MAX)
        self.assertGreater(sum(sent), ATTACK_BYTES // 2)

    def test_answers_that_are_not_read(self) -> None:
        """Else whoever asks for large values and reads nothing takes all memory."""
        self.assertEqual(
            self.processes.kvcli("put", "large", "-", stdin=b"x" * (4 << 20)).returncode, 0
        )
        self.before_bytes = self.resident_bytes()
        asked: list[int] = []

        def deaf(peer: socket.socket) -> None:
            peer.settimeout(3)
            for request in requests(b"large"):
                peer.sendall(request)
                asked.append(1)
                if len(asked) > 100_000:
                    break

        growth = self.attack(deaf)
        self.assertLess(growth, GROWTH_BYTES_MAX)
        self.assertGreater(len(asked), ATTACK_BYTES // (4 << 20))

    def test_many_boxes_in_flight(self) -> None:
        """Else small requests, sent without end and never read, take all memory."""
        asked: list[int] = []

        def flood(peer: socket.socket) -> None:
            peer.settimeout(3)
            batch = b"".join(islice(requests(b"k"), 1000))
            while len(asked) < 2000:
                peer.sendall(batch)
                asked.append(1000)

        self.assertLess(self.attack(flood), GROWTH_BYTES_MAX)
        self.assertGreater(sum(asked), 10_000)

    def test_many_connections_with_unfinished_boxes(self) -> None:
        """Else connections that each stay within their limits take all memory together, with boxes
        that they begin, whole or in fragments, and do not end."""
        sent: list[int] = []
        all_have_begun = threading.Barrier(CONNECTIONS)

        def begin(box: bytes) -> Callable[[socket.socket], None]:
            def unfinished(peer: socket.socket) -> None:
                try:
                    for at in range(0, len(box), 1 << 16):
                        peer.sendall(box[at : at + (1 << 16)])
                        sent.append(1 << 16)
                finally:
                    all_have_begun.wait(ATTACK_SECONDS_MAX)

            return unfinished

        box = write_box({ASK: b"1", COMMAND: b"Put", b"key": b"k"})[:-2]
        box += b"".join(pair(b"%d" % at, b"x" * 65_000) for at in range(UNFINISHED_BYTES // 65_000))
        fragments = b"".join(list(cut(box))[:-1])
        attackers = [begin(fragments if at % 2 else box) for at in range(CONNECTIONS)]
        growth_bytes = self.attack(*attackers)
        self.assertGreater(sum(sent), HELD_BYTES_MAX + GROWTH_BYTES_MAX)
        self.assertLess(growth_bytes, HELD_BYTES_MAX + GROWTH_BYTES_MAX)
        self.assertGreater(growth_bytes, HELD_BYTES_MAX // 2)
        lines = re.findall(".*connection dropped: over held_bytes_max=.*", self.node.output)
        self.assertGreater(len(lines), 0)
        self.assertLess(len(lines), ATTACK_SECONDS_MAX + 5)


def requests(key: bytes) -> Iterator[bytes]:
    """Endless requests for *key*."""
    number = 0
    while True:
        number += 1
        yield write_box({ASK: b"%x" % number, COMMAND: b"Get", b"key": key})
