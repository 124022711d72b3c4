"""Large values between real nodes, and what else goes on there meanwhile."""

from __future__ import annotations

import json
import sys

from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from tests.processes.nodes import Processes

SECONDS = 4.0

_log = Logger(namespace="kvtwist.tests")


class ForwardingTests(SynchronousTestCase):
    """Two nodes; one forwards values of 16 MiB to the other."""

    def test_others_are_served(self) -> None:
        """Else large values make healthy nodes look dead to each other, and small requests miss
        their deadlines. How long the slowest took is noted in the log; it is the machine's."""
        processes = Processes(nodes=2)
        self.addCleanup(processes.close)
        processes.found()
        ports = map(str, processes.ports)
        program = (sys.executable, "-m", "tests.processes.forwarding", str(SECONDS), *ports)
        load = processes.run(program, "load")
        said = json.loads(load.wait_for('"done"'))
        self.assertEqual(load.wait(), 0)
        _log.info("{said}", said=said)
        self.assertEqual(said["failed"], [])
        for name in ("put", "large get"):
            self.assertGreaterEqual(said["done"][name], 2, said)
        for name in ("get", "ping 1", "ping 2"):
            self.assertGreaterEqual(said["done"][name], 10, said)
        for node in processes.nodes.values():
            self.assertNotIn("dropped", node.output)
        trouble = [(node, link) for node, links in said["unreachable"].items() for link in links]
        self.assertEqual(trouble, [])
