"""The README's quick start, with real processes and sockets."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import sys
from functools import partial

from twisted.trial.unittest import SynchronousTestCase

from tests.processes.nodes import CHECKOUT, TWISTD, Processes, free_ports, free_ports_in_a_row


class QuickStartTests(SynchronousTestCase):
    """What a stranger tries in the first five minutes."""

    def setUp(self) -> None:
        self.processes = Processes()
        self.addCleanup(self.processes.close)

    def test_three_nodes_in_one_directory(self) -> None:
        """T2: the quick start, word for word; then a client that knows one node; then status."""
        self.processes.found()
        put = self.processes.kvcli("put", "user:42", "alice")
        self.assertEqual((put.returncode, put.stdout, put.stderr), (0, b"", b""))
        for port in self.processes.ports:
            got = self.processes.kvcli("get", "user:42", peers=f":{port}")
            self.assertEqual((got.returncode, got.stdout, got.stderr), (0, b"alice\n", b""))
        status = json.loads(self.processes.kvcli("status", "--json").stdout)
        self.assertEqual([node["answers"] for node in status["nodes"]], [True] * 3)
        self.assertEqual([node["key_count"] for node in status["nodes"]], [1] * 3)
        pids = sorted(path.name for path in self.processes.directory.glob("*.pid"))
        self.assertEqual(pids, [f"kvnode-node-{number}.pid" for number in (1, 2, 3)])

    def test_standard_input_and_raw_output(self) -> None:
        """Else files do not survive ``kvcli put KEY - < FILE; kvcli get --raw KEY``."""
        self.processes.found()
        data = bytes(range(256)) * 4000
        self.assertEqual(self.processes.kvcli("put", "file", "-", stdin=data).returncode, 0)
        self.assertEqual(self.processes.kvcli("get", "--raw", "file").stdout, data)

    def test_exit_codes(self) -> None:
        """Scripts decide by them (and people by the one line on standard error)."""
        self.processes.found()
        cases = (
            (0, ("put", "k", "v"), b""),
            (1, ("get", "none"), b"none: not found"),
            (1, ("delete", "none"), b"not found"),
            (1, ("cas", "k", "w", "0"), b"it is at version"),
            (2, ("put", "k"), b"Missing argument"),
            (4, ("put", "k" * 4097, "v"), b"key_bytes_max=4,096"),
        )
        for status, arguments, said in cases:
            done = self.processes.kvcli(*arguments)
            self.assertEqual(done.returncode, status, (arguments, done))
            self.assertIn(said, done.stderr)
            self.assertLessEqual(done.stderr.count(b"\n"), 1)

    def test_a_killed_node(self) -> None:
        """Its keys are led by another one, with all that was acknowledged; with a second node gone
        there is no majority, exit 3; then it comes back."""
        self.processes.found()
        keys = self.keys_by_owner()
        self.assertEqual(self.processes.kvcli("put", keys[2], "kept").returncode, 0)
        self.processes.nodes[2].signal(signal.SIGKILL)
        self.processes.nodes[2].wait()
        for number in (1, 3):
            self.assertEqual(self.processes.kvcli("put", keys[number], "v").returncode, 0)
        self.assertEqual(self.processes.kvcli("get", keys[2]).stdout, b"kept\n")
        self.assertEqual(self.processes.kvcli("put", keys[2], "without it").returncode, 0)
        status = self.processes.kvcli("status")
        self.assertIn(b"no: connection refused", status.stdout)
        self.processes.nodes[3].signal(signal.SIGKILL)
        self.processes.nodes[3].wait()
        lost = self.processes.kvcli("--timeout=1", "get", keys[2])
        self.assertEqual(lost.returncode, 3)
        self.assertNotIn(b"Traceback", lost.stderr)
        status = self.processes.kvcli("status")
        self.assertEqual(status.returncode, 3)
        self.assertIn(b"; a majority of 2 is needed\n", status.stdout)
        self.processes.start(2).wait_for("is back in cluster")
        self.assertEqual(self.processes.kvcli("get", keys[2]).stdout, b"without it\n")
        self.assertEqual(self.processes.kvcli("put", keys[2], "v").returncode, 0)

    def test_a_killed_node_in_memory(self) -> None:
        """It comes back in, empty."""
        self.processes.options = ("--memory",)
        self.processes.found()
        self.processes.nodes[2].signal(signal.SIGKILL)
        self.processes.nodes[2].wait()
        self.processes.start(2).wait_for("rejoined, with empty memory, cluster")
        self.assertEqual(list(self.processes.directory.glob("*.kvtwist")), [])

    def test_everything_restarted(self) -> None:
        """The quick start's nodes, ended and started again, have what was put."""
        self.processes.found()
        self.assertEqual(self.processes.kvcli("put", "user:42", "alice").returncode, 0)
        for number in (signal.SIGTERM, signal.SIGKILL):
            for node in self.processes.nodes.values():
                node.signal(number)
            for node in self.processes.nodes.values():
                node.wait()
            for at in (3, 1, 2):
                self.processes.start(at)
            got = self.processes.kvcli("get", "user:42")
            self.assertEqual((got.returncode, got.stdout), (0, b"alice\n"))

    def test_another_data_directory(self) -> None:
        """R11: who has lost its data is not who it was, and says so in one line."""
        self.processes.found()
        self.processes.nodes[2].signal(signal.SIGKILL)
        self.processes.nodes[2].wait()
        options = ("--id=node-2", f"--addr=:{self.processes.ports[1]}", "--data-dir=empty")
        peers = f"--peers={self.processes.peers}"
        command = (*TWISTD, "-n", "--pidfile=", "kvnode", *options, peers)
        second = self.processes.run(command, "second")
        self.assertEqual(second.wait(), 1)
        self.assertIn("knows node-2 with another data directory", second.output)
        self.assertNotIn("Traceback", second.output)

    def test_data_directories_that_cannot_be_used(self) -> None:
        """One line each, exit 1: another node's, one in use, one that is a file."""
        self.processes.found()
        (self.processes.directory / "file").write_text("a file")
        cases = (
            ("other", "node-1.kvtwist", "is in use by another process"),
            ("other", "file", "file cannot be used: "),
        )
        for name, where, said in cases:
            command = (*TWISTD, "-n", "kvnode", f"--id={name}", self.free(), f"--data-dir={where}")
            program = self.processes.run(command, "wrong")
            self.assertEqual(program.wait(), 1, where)
            self.assertIn(said, program.output)
            self.assertNotIn("Traceback", program.output)
        self.processes.nodes[1].signal(signal.SIGTERM)
        self.processes.nodes[1].wait()
        command = (*TWISTD, "-n", "kvnode", "--id=x", self.free(), "--data-dir=node-1.kvtwist")
        program = self.processes.run(command, "wrong")
        self.assertEqual(program.wait(), 1)
        self.assertIn("belongs to node-1, not to x", program.output)

    def free(self) -> str:
        """The option for a port that nobody has."""
        (port,) = free_ports(1)
        return f"--addr=:{port}"

    def keys_by_owner(self) -> dict[int, str]:
        """A key for each node, found with ``kvcli where``."""
        keys: dict[int, str] = {}
        for at in range(100):
            if len(keys) == 3:
                break
            where = json.loads(self.processes.kvcli("where", "--json", f"k{at}").stdout)
            keys.setdefault(int(where["owner"].removeprefix("node-")), f"k{at}")
        return keys

    def test_frozen_majority(self) -> None:
        """C1: a write is not done (3), or its fate is unknown (5): that depends on when the leader
        notices; it is never said to be done. When they go on, so does the cluster."""
        self.processes.found()
        keys = self.keys_by_owner()
        frozen = [self.processes.nodes[number] for number in (2, 3)]
        for node in frozen:
            node.signal(signal.SIGSTOP)
        port = self.processes.ports[0]
        done = self.processes.kvcli("--timeout=3", "put", keys[1], "v", peers=f":{port}")
        for node in frozen:
            node.signal(signal.SIGCONT)
        self.assertIn(done.returncode, (3, 5))
        if done.returncode == 5:
            self.assertIn(b"read the key to see", done.stderr)
        self.assertEqual(self.processes.kvcli("put", keys[1], "w").returncode, 0)
        self.assertEqual(self.processes.kvcli("get", keys[1]).stdout, b"w\n")

    def test_unavailable_until_founded(self) -> None:
        """The error names whom the founding waits for."""
        self.processes.start(1).wait_for("listens on")
        self.processes.start(2).wait_for("listens on")
        put = self.processes.kvcli("--timeout=1", "put", "k", "v")
        self.assertEqual(put.returncode, 3)
        self.assertIn(b"127.0.0.1:%d (connection refused)" % self.processes.ports[2], put.stderr)
        self.processes.start(3)
        self.assertEqual(self.processes.kvcli("put", "k", "v").returncode, 0)

    def test_sigterm_stops_cleanly(self) -> None:
        """T11: a node that is told to stop closes its port and removes its pid file."""
        node = self.processes.start(1)
        node.wait_for("listens on")
        self.processes.kvcli("status", peers=f":{self.processes.ports[0]}")  # its reactor runs
        node.signal(signal.SIGTERM)
        node.wait()
        self.assertIn("node-1 has stopped", node.output)
        self.assertNotIn("Traceback", node.output)
        self.assertEqual(list(self.processes.directory.glob("*.pid")), [])

    def test_hostile_bytes(self) -> None:
        """Promise 4: no input stops a node or keeps it from serving others."""
        self.processes.found()
        address = ("127.0.0.1", self.processes.ports[0])
        boxes = b"".join(b"\0\4%04d\0\1x" % at for at in range(10_000)) + b"\0\0"
        inputs = (
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            bytes(range(255, -1, -1)) * 100,
            b"\0\4_ask",
            b"\0\0" * 1000,
            boxes,
            b"\0\4_ask\0\1" + b"1" + b"\0\x08_command\0\7Nothing\0\0",
            b"\0\4_ask\0\1" + b"1" + b"\0\x08_command\0\3Get\0\0",
        )
        held = []
        for data in inputs:
            peer = socket.create_connection(address, timeout=5)
            peer.sendall(data)
            held.append(peer)
            self.assertEqual(self.processes.kvcli("put", "k", "v", peers=self.one).returncode, 0)
        for peer in held:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_WR)
        self.assertEqual(self.processes.kvcli("get", "k", peers=self.one).stdout, b"v\n")
        for peer in held:
            peer.close()
        self.assertNotIn("Traceback", self.processes.nodes[1].output)

    @property
    def one(self) -> str:
        """The first node alone."""
        return f":{self.processes.ports[0]}"

    def test_a_port_in_use(self) -> None:
        """One line that says what to do, a non-zero exit, no traceback."""
        self.processes.start(1).wait_for("listens on")
        command = (*TWISTD, "-n", "kvnode", "--id=other", f"--addr=:{self.processes.ports[0]}")
        second = self.processes.run(command, "other")
        self.assertEqual(second.wait(), 1)
        self.assertIn("kvnode: cannot listen on", second.output)
        self.assertNotIn("Traceback", second.output)
        self.assertFalse((self.processes.directory / "kvnode-other.pid").exists())

    def test_a_port_in_use_for_a_daemon(self) -> None:
        """The same without -n: else the command at the terminal waits for ever."""
        self.processes.start(1).wait_for("listens on")
        command = (*TWISTD, "kvnode", "--id=other", f"--addr=:{self.processes.ports[0]}")
        second = self.processes.run(command, "other")
        self.assertEqual(second.wait(), 1)
        self.assertIn("cannot listen on", second.output)

    def test_a_second_node_of_one_name_in_one_directory(self) -> None:
        """T2: in our words, not in twistd's about "another twistd server"."""
        self.processes.start(1).wait_for("listens on")
        command = (*TWISTD, "-n", "kvnode", "--id=node-1", f"--addr=:{self.processes.ports[1]}")
        second = self.processes.run(command, "second")
        self.assertEqual(second.wait(), 2)
        self.assertIn("kvnode: node-1 runs in this directory already", second.output)
        self.assertEqual(second.output.count("\n"), 1)

    def test_one_id_at_two_addresses(self) -> None:
        """The second one says so and ends with a non-zero status; the first one goes on."""
        self.processes.start(1).wait_for("listens on")
        options = ("--id=node-1", f"--addr=:{self.processes.ports[1]}")
        peers = f"--peers={self.processes.peers}"
        others = ("--pidfile=second.pid", "kvnode", "--data-dir=second")
        command = (*TWISTD, "-n", *others, *options, peers)
        second = self.processes.run(command, "second")
        self.assertEqual(second.wait(), 1)
        self.assertIn("kvnode: the name node-1 is already used by the node at", second.output)
        self.assertNotIn("Traceback", second.output)
        self.processes.start(2).wait_for("listens on")
        self.processes.start(3)
        self.processes.nodes[1].wait_for("founded cluster")

    def test_a_command_line_that_makes_no_sense(self) -> None:
        """One line, exit 2, not pages of help and exit 0 as twistd does on its own."""
        for options, said in (
            (("--frob",), "--frob not recognized"),
            (("--id=",), "--id is empty"),
            (("--peers=:1,:2", "--id=a"), "lacks this node's own address"),
        ):
            program = self.processes.run((*TWISTD, "-n", "kvnode", *options), "wrong")
            self.assertEqual(program.wait(), 2)
            self.assertIn(said, program.output)
            self.assertEqual(program.output.count("\n"), 1)

    def test_python_dash_m(self) -> None:
        """``python -m kvtwist`` starts a node too."""
        port = self.processes.ports[0]
        node = self.processes.run((sys.executable, "-m", "kvtwist", f"--addr=:{port}"), "module")
        node.wait_for("founded cluster")
        self.assertEqual(self.processes.kvcli("put", "k", "v", peers=f":{port}").returncode, 0)

    def test_kvcli_local(self) -> None:
        """``make run`` rests on it: one ready line, and no node left behind."""
        port = free_ports_in_a_row(2)
        command = (sys.executable, "-c", "from kvtwist.cli.main import main; main()", "local", "2")
        local = self.processes.run((*command, f"--port={port}"), "local")
        local.wait_for("2 nodes are ready")
        peers = f":{port},:{port + 1}"
        self.assertEqual(self.processes.kvcli("put", "k", "v", peers=peers).returncode, 0)
        local.signal(signal.SIGINT)
        self.assertEqual(local.wait(), 0)
        self.assertNotIn("Traceback", local.output)
        gone = self.processes.kvcli("--timeout=0.3", "get", "k", peers=peers)
        self.assertIn(b"connection refused", gone.stderr)


class ExampleTests(SynchronousTestCase):
    """Examples are documentation that runs."""

    def setUp(self) -> None:
        self.processes = Processes(nodes=2)
        self.addCleanup(self.processes.close)

    def example(self, name: str) -> str:
        """An example's text, on free ports."""
        text = (CHECKOUT / "examples" / name).read_text()
        node, web = self.processes.ports
        return text.replace("8001", str(node)).replace("8080", str(web))

    def test_ten_lines_of_stock_amp(self) -> None:
        """A program that knows only Twisted's AMP and our commands puts and gets; as the README
        says, in these words."""
        text = (CHECKOUT / "examples" / "stock_amp.py").read_text()
        program = text.partition('"""\n\n')[2]
        self.assertIn(program, (CHECKOUT / "README.md").read_text())
        port = self.processes.ports[0]
        node = self.processes.run((*TWISTD, "-n", "kvnode", f"--addr=:{port}"), "node")
        node.wait_for("founded cluster")
        command = (sys.executable, "-c", self.example("stock_amp.py"))
        stock = self.processes.run(command, "stock")
        self.assertEqual((stock.wait(), stock.output), (0, "alice\n"))

    def test_embedded(self) -> None:
        """T1: a node in somebody else's application; the host's reactor is left as it is."""
        tac = self.processes.directory / "embedded.tac"
        tac.write_text(self.example("embedded.tac"))
        host = self.processes.run((*TWISTD, "-n", "-y", str(tac)), "host")
        host.wait_for("founded cluster")
        self.assertEqual(host.output.count("this reactor's timers follow the wall clock"), 1)
        for visit in (b"visit 1\n", b"visit 2\n"):
            with socket.create_connection(("127.0.0.1", self.processes.ports[1]), 5) as page:
                page.sendall(b"GET / HTTP/1.0\r\n\r\n")
                answer = b"".join(iter(partial(page.recv, 4096), b""))
            self.assertIn(visit, answer)
        host.signal(signal.SIGTERM)
        host.wait()
        self.assertIn("node-1 has stopped", host.output)
        self.assertNotIn("Traceback", host.output)
