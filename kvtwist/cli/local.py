"""``kvcli local``: a whole cluster in the foreground, each node a process of its own."""

from __future__ import annotations

import os
import sys
from typing import Any

import click
from twisted.internet import task
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from kvtwist.client import Client
from kvtwist.errors import KvtwistError
from kvtwist.wire.clock import make_monotonic

READY_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 5.0
_TWISTD = """
import os, signal, threading
os.setsid()
def watch():
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=watch, daemon=True).start()
from twisted.scripts.twistd import run
run()
"""
"""A node out of reach of the terminal's Ctrl-C, which we pass on in order; it ends when the pipe
from us does, so also when we are killed."""


class NodeOutput(ProcessProtocol):
    """One node's process: its output, with the node's name before each line, and its end."""

    def __init__(self, name: str, verbose: bool) -> None:
        self.name = name
        self.ended: Deferred[str] = Deferred()
        self.stopping = False
        self._verbose = verbose

    def outReceived(self, data: bytes) -> None:
        """The node's log."""
        if self._verbose:
            self._show(data)

    def errReceived(self, data: bytes) -> None:
        """The node's complaints."""
        if not self.stopping:
            self._show(data)

    def processEnded(self, reason: Failure) -> None:
        """Say how it ended."""
        clean = reason.check(ProcessDone) is not None
        how = "ended" if clean else reason.getErrorMessage()
        self.ended.callback(how)

    def stop(self, signal_name: str = "TERM") -> None:
        """Ask it to end."""
        self.stopping = True
        if self.transport is not None and self.transport.pid:
            self.transport.signalProcess(signal_name)

    def _show(self, data: bytes) -> None:
        for line in data.decode(errors="replace").splitlines():
            click.echo(f"{self.name}: {line}", err=True)


class LocalCluster:
    """N nodes on loopback ports in a row."""

    def __init__(
        self, reactor: Any, nodes: int, port: int, options: list[str], verbose: bool
    ) -> None:
        self._reactor = reactor
        self._options = options
        self.peers = ",".join(f":{port + at}" for at in range(nodes))
        self._nodes = {port + at: NodeOutput(f"node-{at + 1}", verbose) for at in range(nodes)}
        self._running = set(self._nodes.values())
        self.all_ended: Deferred[None] = Deferred()
        self.stopping = False

    def start(self) -> None:
        """Start every process."""
        for port, node in self._nodes.items():
            arguments = [f"--id={node.name}", f"--addr=:{port}", f"--peers={self.peers}"]
            twistd = [sys.executable, "-c", _TWISTD, "--nodaemon", "--pidfile=", "kvnode"]
            command = [*twistd, *arguments, *self._options]
            self._reactor.spawnProcess(node, sys.executable, command, env=os.environ)
            node.ended.addCallback(self._ended, node)

    async def ready(self) -> bool:
        """Wait until every node serves. Whether they do; if not, what is left has been stopped."""
        client = Client(self._reactor, self.peers)
        deadline = self._reactor.seconds() + READY_SECONDS_MAX
        try:
            while len(self._running) == len(self._nodes):
                if await self._serve(client):
                    return True
                if self._reactor.seconds() > deadline:
                    click.echo("kvcli: the cluster did not come up in time", err=True)
                    break
                await task.deferLater(self._reactor, 0.05, lambda: None)
        finally:
            await client.close()
        return False

    async def stop(self) -> None:
        """Stop every process, and wait for the last."""
        self.stopping = True
        for node in self._running:
            node.stop()
        late = self._reactor.callLater(STOP_SECONDS_MAX, self._kill)
        if self._running:
            await self.all_ended
        if late.active():
            late.cancel()

    async def _serve(self, client: Client) -> bool:
        """Whether every node belongs to one founded cluster."""
        addresses = self.peers.split(",")
        results = await DeferredList([client.status(at) for at in addresses], consumeErrors=True)
        if not all(succeeded for succeeded, _ in results):
            return False
        return all(answer["cluster_id"] for _, answer in results)

    def _ended(self, how: str, node: NodeOutput) -> None:
        self._running.discard(node)
        if not node.stopping:
            click.echo(f"{node.name} is gone: {how}", err=True)
        if not self._running:
            self.all_ended.callback(None)

    def _kill(self) -> None:
        for node in self._running:
            node.stop("KILL")


def run_local(nodes: int, port: int, options: list[str], verbose: bool) -> None:
    """Run a cluster until it is interrupted.

    :param options: of every node.
    """
    task.react(lambda reactor: Deferred.fromCoroutine(_run(reactor, nodes, port, options, verbose)))


async def _run(reactor: Any, nodes: int, port: int, options: list[str], verbose: bool) -> None:
    make_monotonic(reactor)
    cluster = LocalCluster(reactor, nodes, port, options, verbose)
    reactor.addSystemEventTrigger(
        "before", "shutdown", lambda: Deferred.fromCoroutine(cluster.stop())
    )
    cluster.start()
    try:
        ready = await cluster.ready()
    except KvtwistError as error:
        click.echo(f"kvcli: {error}", err=True)
        ready = False
    if not ready:
        await cluster.stop()
        raise SystemExit(1)
    count = "1 node is" if nodes == 1 else f"{nodes} nodes are"
    click.echo(
        f"{count} ready; Ctrl-C stops them. "
        f"In another terminal: kvcli --peers={cluster.peers} put user:42 alice"
    )
    await cluster.all_ended
    raise SystemExit(0 if cluster.stopping else 1)
