"""Whole clusters in the simulated network."""

from __future__ import annotations

from random import Random
from typing import Any

from kvtwist.client import Client
from kvtwist.core.address import Address
from kvtwist.core.topology import Settings
from kvtwist.errors import KvtwistError
from kvtwist.node.limits import Limits
from kvtwist.service import Node, NodeConfig
from tests.simulated import Network

PORT = 8001
CLIENT_IP = "10.0.1.1"


def ip_of(number: int) -> str:
    """The address of the host of node-*number*."""
    return f"10.0.0.{number}"


class SimulatedCluster:
    """Nodes node-1, node-2, ... on hosts of their own."""

    def __init__(self, size: int = 3, limits: Limits | None = None, partitions: int = 16) -> None:
        self.network = Network()
        self.size = size
        self.limits = limits or Limits()
        self.settings = Settings(partitions=partitions)
        self.nodes: dict[int, Node] = {}
        self.hopeless: dict[str, KvtwistError] = {}
        self.given_up: list[Address] = []
        self.open_storage: Any = None
        self._lives = 0

    @property
    def addresses(self) -> tuple[Address, ...]:
        return tuple(Address(ip_of(number), PORT) for number in range(1, self.size + 1))

    def start(self, *numbers: int) -> None:
        """Start some nodes; all, if none is named."""
        for number in numbers or range(1, self.size + 1):
            self.start_node(number)

    def start_node(self, number: int, **changes: Any) -> Node:
        """Start one, with parts of its configuration changed."""
        config: dict[str, Any] = {
            "name": f"node-{number}",
            "listen": Address(ip_of(number), PORT),
            "founders": self.addresses,
            "settings": self.settings,
            "limits": self.limits,
        } | changes
        self._lives += 1
        node = Node(
            self.network.host(config["listen"].host),
            NodeConfig(**config),
            hopeless=lambda error: self._gave_up(config, error),
            identity=f"{self._lives:032x}",
            chance=Random(self._lives).random,  # nodes that are all alike never elect anybody
            wall_seconds=self.network.clock.seconds,
            open_storage=self.open_storage,
        )
        node.privilegedStartService()
        node.startService()
        self.nodes[number] = node
        return node

    def _gave_up(self, config: dict[str, Any], error: KvtwistError) -> None:
        self.hopeless[config["name"]] = error
        self.given_up.append(config["listen"])

    def run(self, seconds: float) -> None:
        self.network.run(seconds)

    def found(self) -> None:
        """Start all nodes and let them found the cluster."""
        self.start()
        self.run(2.0)
        assert all(node.cluster.topology for node in self.nodes.values())

    def crash(self, number: int) -> None:
        """Kill a node."""
        self.network.crash(ip_of(number))
        del self.nodes[number]

    def client(self, *numbers: int, **options: Any) -> Client:
        """A client that knows the nodes named; all, if none is."""
        peers = [f"{ip_of(number)}:{PORT}" for number in numbers or range(1, self.size + 1)]
        return Client(self.network.host(CLIENT_IP), peers, chance=lambda: 0.5, **options)

    def key_of(self, number: int, prefix: str = "key") -> str:
        """Some key that node-*number* owns."""
        topology = next(iter(self.nodes.values())).cluster.founded()
        return next(
            key
            for key in (f"{prefix}-{at}" for at in range(10_000))
            if topology.owner(topology.partition_of(key.encode())).name == f"node-{number}"
        )
