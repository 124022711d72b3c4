"""The fuzzer is run by hand, for long; here it is seen to run at all."""

from __future__ import annotations

import random
from itertools import islice

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.wire.codec import codec_of
from kvtwist.wire.commands import COMMANDS, Ping
from tests.fuzz.wire import FuzzedNode, run_random, valid_streams


class FuzzTests(SynchronousTestCase):
    def test_some_inputs(self) -> None:
        """A fuzzer that no longer starts finds nothing, and nobody notices."""
        self.assertEqual(run_random(seconds=60.0, seed=7, inputs_max=500), 500)

    def test_a_bug_is_noticed(self) -> None:
        """Else every input is as good as any other."""
        node = FuzzedNode()
        ping = codec_of(Ping).write_request(b"1", {})
        node.check(ping, [])
        node.bugs.append("a responder has raised")
        self.assertRaises(AssertionError, node.check, ping, [])

    def test_every_command_is_among_the_inputs(self) -> None:
        """One that is added and not fuzzed is the one with the mistake in it."""
        seen: set[bytes] = set()
        for stream in _streams():
            seen |= {each.commandName for each in COMMANDS if each.commandName in stream}
            if len(seen) == len(COMMANDS):
                break
        self.assertEqual(seen, {each.commandName for each in COMMANDS})


def _streams() -> list[bytes]:
    return list(islice(valid_streams(random.Random(1)), 300))
