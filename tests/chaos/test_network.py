"""A network of our own, for campaigns: that a cut cuts, what it says and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.chaos.network import Network, NotPermittedError

LISTEN = """
import socket, sys
listening = socket.create_server((sys.argv[1], 8000))
print("listens", flush=True)
while True:
    listening.accept()[0].close()
"""
DIAL = """
import socket, sys
for address in sys.argv[1:]:
    try:
        socket.create_connection((address, 8000), 0.4)
        print("reached")
    except TimeoutError:
        print("silence")
"""


class NetworkTests(SynchronousTestCase):
    """X1: a cut that does not cut would let each campaign pass."""

    def setUp(self) -> None:
        try:
            self.network = Network(3)
        except NotPermittedError as error:
            raise SkipTest(f"no namespaces here: {error}") from error
        self.addCleanup(self.network.close)
        for host in range(3):
            self.listen(host)

    def listen(self, host: int) -> None:
        """Listen on a host."""
        program = (sys.executable, "-c", LISTEN, self.network.address(host))
        listener = subprocess.Popen((*self.network.prefix(host), *program), stdout=subprocess.PIPE)
        assert listener.stdout is not None
        self.addCleanup(listener.stdout.close)
        self.addCleanup(listener.wait)
        self.addCleanup(listener.kill)
        self.assertEqual(listener.stdout.readline(), b"listens\n")

    def silent(self) -> set[tuple[int, int]]:
        """From where to where nobody is reached."""
        pairs = [(a, b) for a in range(3) for b in range(3) if a != b]
        dialling = {}
        for a, b in pairs:
            program = (sys.executable, "-c", DIAL, self.network.address(b))
            dialling[a, b] = subprocess.Popen(
                (*self.network.prefix(a), *program), stdout=subprocess.PIPE
            )
        said = {pair: each.communicate(timeout=20)[0].strip() for pair, each in dialling.items()}
        self.assertLessEqual({*said.values()}, {b"reached", b"silence"})
        return {pair for pair, what in said.items() if what == b"silence"}

    def test_cuts(self) -> None:
        """A dial needs both ways; so what is cut one way is silent from both sides, and the third
        host is reached by all. Then all is whole again."""
        self.assertEqual(self.silent(), set())
        self.network.cut([(0, 1)])
        self.assertEqual(self.silent(), {(0, 1), (1, 0)})
        self.network.cut([(1, 2), (2, 1)])
        self.assertEqual(self.silent(), {(1, 2), (2, 1)})
        self.network.cut([])
        self.assertEqual(self.silent(), set())

    def test_nothing_is_left(self) -> None:
        """Else a machine fills with the namespaces of old campaigns."""
        own = f"kvtwist-chaos-{os.getpid()}-"
        self.assertEqual(len(self.namespaces(own)), 4)
        self.network.close()
        self.assertEqual(self.namespaces(own), [])

    def test_what_a_killed_run_has_left(self) -> None:
        """It goes when the next one begins; a running one's does not."""
        gone = subprocess.Popen(("true",))
        gone.wait()
        old = f"kvtwist-chaos-{gone.pid}-1"
        subprocess.run(("ip", "netns", "add", old), check=True)
        self.network.close()
        self.network = Network(1)
        self.assertEqual(self.namespaces(old), [])
        self.assertEqual(len(self.namespaces(f"kvtwist-chaos-{os.getpid()}-")), 2)

    def namespaces(self, prefix: str) -> list[str]:
        """Those whose name begins so."""
        return [path.name for path in Path("/run/netns").glob(f"{prefix}*")]
