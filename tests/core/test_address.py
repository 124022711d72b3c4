"""Addresses: what is read, what is refused, and what counts as the same."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.address import Address, parse_address, parse_addresses
from kvtwist.errors import ConfigurationError

READABLE = {
    ":8001": ("127.0.0.1", 8001),
    "host:8001": ("host", 8001),
    "10.0.0.5:8001": ("10.0.0.5", 8001),
    "[::1]:8001": ("::1", 8001),
    "[2001:db8::5]:8001": ("2001:db8::5", 8001),
    "[fe80::1%eth0]:8001": ("fe80::1%eth0", 8001),
    "node-1.example.org:1": ("node-1.example.org", 1),
    "kvtwist_node-1:65535": ("kvtwist_node-1", 65535),
    "4ever:8001": ("4ever", 8001),
    "host:08001": ("host", 8001),
    "  :8001\n": ("127.0.0.1", 8001),
    "0.0.0.0:8001": ("0.0.0.0", 8001),
    "[::]:8001": ("::", 8001),
    "x" * 63 + ":1": ("x" * 63, 1),
}

SAME = [
    (":8001", "localhost:8001", "127.0.0.1:8001", "LocalHost:8001", " :08001 "),
    ("[::1]:8001", "[0:0:0:0:0:0:0:1]:8001", "[0000::0001]:8001"),
    ("[2001:DB8::A]:8001", "[2001:db8:0::a]:8001"),
    ("Node-1.Example.ORG:8001", "node-1.example.org:8001"),
]

DIFFERENT = [
    ":8001",
    ":8002",
    "127.0.0.2:8001",
    "[::1]:8001",
    "0.0.0.0:8001",
    "host:8001",
    "host.example.org:8001",
]

UNREADABLE = [
    "",
    "   ",
    ":",
    "host",
    "host:",
    "host: ",
    "host:0",
    ":0",
    "host:65536",
    "host:99999",
    "host:008001",
    "host:-1",
    "host:+1",
    "host:1.5",
    "host:0x50",
    "host:8_001",
    "host:http",
    "host:\u0668\u0660",
    "host:\uff18\uff10",
    "host:\u00b2",
    "8001",
    "::1:8001",
    "::1",
    "[::1]",
    "[::1]8001",
    "[::1:8001",
    "::1]:8001",
    "[[::1]]:8001",
    "[]:8001",
    "[:]:8001",
    "[host]:8001",
    "[1.2.3.4]:1",
    "[::1]x:8001",
    "[fe80::1%]:8001",
    "1.2.3:80",
    "1.2.3.4.5:80",
    "1.2.3.256:80",
    "01.2.3.4:80",
    "127.1:80",
    "80:80",
    "a b:1",
    "a\tb:1",
    "a\nb:1",
    "host :1",
    "a,b:1",
    "http://host:1",
    "user@host:1",
    "host/path:1",
    "-host:1",
    "host-:1",
    ".host:1",
    "host.:1",
    "a..b:1",
    "b\u00fccher.example:1",
    "x" * 64 + ":1",
    "a." * 127 + "b:1",
    "\x1b[31m:1",
    "\x00:1",
]

LABEL = r"[a-z0-9_]([a-z0-9_-]{0,8}[a-z0-9_])?"


def texts() -> st.SearchStrategy[str]:
    """Addresses as people may write them."""
    names = st.from_regex(rf"[a-zA-Z]({LABEL})?(\.{LABEL}){{0,3}}", fullmatch=True)
    v4 = st.ip_addresses(v=4).map(str)
    v6 = st.ip_addresses(v=6)
    bracketed = st.one_of(v6.map(str), v6.map(lambda ip: ip.exploded.upper())).map("[{}]".format)
    hosts = st.one_of(st.just(""), st.just("LOCALHOST"), names, v4, bracketed)
    return st.builds("{}:{}".format, hosts, st.integers(1, 65535))


class ParseAddressTests(SynchronousTestCase):
    """One address."""

    def refusal_of(self, text: str) -> str:
        """What is said against *text*."""
        try:
            address = parse_address(text)
        except ConfigurationError as error:
            return str(error)
        raise AssertionError(f"{text!r} was read as {address!r}")

    def assert_refused(self, text: str) -> None:
        """*text* is refused with one line that shows it."""
        message = self.refusal_of(text)
        self.assertEqual(len(message.splitlines()), 1, message)
        self.assertIn(repr(text), message)
        self.assertIn("HOST:PORT", message)

    def test_readable(self) -> None:
        """A node could not be started at an address that the documentation allows."""
        for text, (host, port) in READABLE.items():
            self.assertEqual(parse_address(text), Address(host, port), text)

    def test_same(self) -> None:
        """A node would not find itself in ``--peers``, because it is written another way there."""
        for spellings in SAME:
            self.assertEqual(len({parse_address(text) for text in spellings}), 1, spellings)

    def test_different(self) -> None:
        """Two nodes at two addresses would be taken for one, and one never be dialled."""
        self.assertEqual(len({parse_address(text) for text in DIFFERENT}), len(DIFFERENT))

    def test_unreadable(self) -> None:
        """A slip of the pen would be dialled for ever, or end in a traceback."""
        for text in UNREADABLE:
            self.assert_refused(text)

    def test_other_alphabets_have_no_capitals_of_ours(self) -> None:
        """A letter that only looks like K would become k, and another host be dialled."""
        self.assert_refused("\u212aube:8001")

    def test_zone_of_an_ipv6_address(self) -> None:
        """Line ends and escape sequences would get into logs and terminals by way of an address."""
        for zone in ("a\nb", "a b", "\x1b[2J", "\x00"):
            self.assert_refused(f"[fe80::1%{zone}]:8001")

    def test_says_what_is_wrong(self) -> None:
        """One would have to guess which part of the address is meant."""
        for text, why in (
            ("8001", "no port"),
            ("::1:8001", "brackets"),
            ("[1.2.3.4]:1", "no IPv6 address in the brackets"),
            ("a b:1", "'a b' is not a host name"),
            ("host:65536", "1 to 65535"),
        ):
            self.assertIn(why, self.refusal_of(text))

    def test_shown(self) -> None:
        """An address copied from a message could not be pasted into a command."""
        self.assertEqual(str(parse_address(":8001")), "127.0.0.1:8001")
        self.assertEqual(str(parse_address("Host:8001")), "host:8001")
        self.assertEqual(str(parse_address("[0::1]:8001")), "[::1]:8001")

    @settings(deadline=None)
    @given(texts())
    def test_round_trip(self, text: str) -> None:
        """An address would change on its way to another node, and never equal itself again."""
        address = parse_address(text)
        self.assertEqual(parse_address(str(address)), address)
        self.assertEqual(str(parse_address(str(address))), str(address))

    @settings(deadline=None)
    @given(st.one_of(st.text(), st.text(alphabet="[]:.%0123456789abcfAF -\n", max_size=30)))
    def test_anything_else(self, text: str) -> None:
        """Some odd text would end in a traceback, or in an address that is not readable again."""
        try:
            address = parse_address(text)
        except ConfigurationError as error:
            self.assertEqual(len(str(error).splitlines()), 1)
            self.assertIn(repr(text), str(error))
        else:
            self.assertTrue(1 <= address.port <= 65535)
            self.assertEqual(parse_address(str(address)), address)

    def test_wildcard(self) -> None:
        """A node would tell others to dial "every interface", where it cannot be found."""
        for text in ("0.0.0.0:1", "[::]:1", "[0:0:0:0:0:0:0:0]:1"):
            self.assertTrue(parse_address(text).is_wildcard, text)
        for text in (":1", "10.0.0.5:1", "[::1]:1", "host:1"):
            self.assertFalse(parse_address(text).is_wildcard, text)

    def test_loopback(self) -> None:
        """A node open to the network would not warn of it, or one that is not would."""
        for text in (":1", "localhost:1", "127.0.0.2:1", "[::1]:1"):
            self.assertTrue(parse_address(text).is_loopback, text)
        for text in ("0.0.0.0:1", "10.0.0.5:1", "[::]:1", "host:1"):
            self.assertFalse(parse_address(text).is_loopback, text)


class ParseAddressesTests(SynchronousTestCase):
    """Lists of addresses."""

    def assert_refused(self, given: str | list[str], *parts: str) -> None:
        """*given* is refused with one line that has each of *parts*."""
        try:
            addresses = parse_addresses(given)
        except ConfigurationError as error:
            message = str(error)
        else:
            raise AssertionError(f"{given!r} was read as {addresses!r}")
        self.assertEqual(len(message.splitlines()), 1, message)
        for part in parts:
            self.assertIn(part, message)

    def test_one_text(self) -> None:
        """``--peers`` would not work as the first page of the documentation writes it."""
        expected = (Address("127.0.0.1", 8001), Address("host", 8002), Address("::1", 8003))
        self.assertEqual(parse_addresses(":8001,host:8002,[::1]:8003"), expected)
        self.assertEqual(parse_addresses(" :8001, host:8002 ,[::1]:8003 "), expected)

    def test_several_texts(self) -> None:
        """A program could not give its client a list that it has as a list."""
        expected = (Address("b", 1), Address("a", 1))
        self.assertEqual(parse_addresses(["b:1", "a:1"]), expected)
        self.assertEqual(parse_addresses(iter(("b:1", "a:1"))), expected)

    def test_order_is_kept(self) -> None:
        """`kvcli status` would show the nodes in another order than the one that was typed."""
        self.assertEqual([a.port for a in parse_addresses(":3,:1,:2")], [3, 1, 2])

    def test_duplicates(self) -> None:
        """Three nodes with one listed twice would wait for ever for a third that does not exist."""
        self.assert_refused(":8001,:8002,:8001", "127.0.0.1:8001", "twice")
        self.assert_refused(":8001,LOCALHOST:8001", "127.0.0.1:8001", "twice")
        self.assert_refused(["[::1]:1", "[0:0::1]:1"], "[::1]:1", "twice")

    def test_empty(self) -> None:
        """A client with nobody to ask would time out instead of saying so."""
        self.assert_refused([], "empty", "HOST:PORT")
        self.assert_refused("", "''")

    def test_stray_commas(self) -> None:
        """A forgotten address, as after a trailing comma, would be passed over in silence."""
        for text in (":8001,", ",:8001", ":8001,,:8002", ","):
            self.assert_refused(text, "''", "HOST:PORT")

    def test_one_is_wrong(self) -> None:
        """One would have to find out which address of a long list is meant."""
        self.assert_refused(":8001,host,:8003", "'host'")
