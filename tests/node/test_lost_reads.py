"""A read that is lost with the leadership is nobody's error: the node asks the next leader."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail

from kvtwist.errors import Unavailable
from kvtwist.wire.commands import Get
from kvtwist.wire.connection import Arguments
from tests.durable import DurableCase


class LostReadTests(DurableCase):
    """`Router.route`, at a node that led when the read came."""

    def test_it_is_asked_for_again(self) -> None:
        """Else a stock program, which does not try again by itself, has an error for each read
        that is under way when a leader changes."""
        self.put("k", "v")
        node: Any = self.cluster.nodes[1]
        apply, lost = node._partitions.apply, [Unavailable("the leader has changed")]

        def losing_one(*arguments: Any) -> Deferred[Arguments]:
            return fail(lost.pop()) if lost else apply(*arguments)

        self.patch(node._partitions, "apply", losing_one)
        wanted = dict.fromkeys(("keyspace", "timeout_ms", "forwarded", "trace"))
        answer = self.result(node._router.route(Get, {"key": b"k", **wanted}))
        self.assertEqual((answer["value"], lost), (b"v", []))
