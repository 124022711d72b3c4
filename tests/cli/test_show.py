"""What is printed: for people, for their terminals, and for programs."""

from __future__ import annotations

import base64
import io
import json
import sys
import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.cli.show import Printer, json_of, table, text_of


class Console:
    """Standard output and standard error, caught while *test* runs."""

    def __init__(self, test: SynchronousTestCase, encoding: str = "utf-8") -> None:
        self._out = io.BytesIO()
        self._err = io.BytesIO()
        self._encoding = encoding
        out = io.TextIOWrapper(self._out, encoding, write_through=True)
        err = io.TextIOWrapper(self._err, encoding, "backslashreplace", write_through=True)
        test.patch(sys, "stdout", out)
        test.patch(sys, "stderr", err)

    @property
    def raw(self) -> bytes:
        """The bytes on standard output."""
        return self._out.getvalue()

    @property
    def out(self) -> str:
        """The text on standard output."""
        return self.raw.decode(self._encoding)

    @property
    def err(self) -> str:
        """The text on standard error."""
        return self._err.getvalue().decode(self._encoding)


class TextOfTests(SynchronousTestCase):
    """Bytes for a terminal."""

    def test_text(self) -> None:
        """Text in any language would be shown as escapes."""
        for text in ("", "alice", "two\nlines\tand a tab", "caf\u00e9 \u65e5\u672c \U0001f600"):
            self.assertEqual(text_of(text.encode()), text)

    def test_binary(self) -> None:
        """A value that is not text would end the command with a traceback."""
        self.assertEqual(text_of(b"\xff\x00a\n"), r"\xff\x00a\n")
        self.assertEqual(text_of(b"caf\xe9"), r"caf\xe9")
        self.assertEqual(text_of(b"\xff\x1b[2J"), r"\xff\x1b[2J")

    def test_control_characters(self) -> None:
        """A stored value could clear, retitle or reprogram the terminal of whoever reads it."""
        self.assertEqual(text_of(b"\x1b[2J\x1b]0;title\x07"), r"\x1b[2J\x1b]0;title\x07")
        self.assertEqual(text_of("\x9b2J\x90".encode()), r"\x9b2J\x90")
        self.assertEqual(text_of(b"hidden\rshown\x08\x7f\x00"), r"hidden\rshown\x08\x7f\x00")

    @settings(deadline=None)
    @given(st.one_of(st.binary(), st.text().map(str.encode)))
    def test_anything(self, data: bytes) -> None:
        """Some value would get a control character through after all."""
        shown = text_of(data)
        control = {each for each in shown if unicodedata.category(each) == "Cc"}
        self.assertEqual(control - {"\n", "\t"}, set())


class JsonOfTests(SynchronousTestCase):
    """Bytes for a program."""

    def test_text(self) -> None:
        """A script would have to decode what is plain text."""
        self.assertEqual(json_of("value", "caf\u00e9\x1b".encode()), {"value": "caf\u00e9\x1b"})
        self.assertEqual(json_of("key", b""), {"key": ""})

    def test_binary(self) -> None:
        """A script could not tell text from encoded bytes, or get the bytes back."""
        self.assertEqual(json_of("value", b"\xff\x00"), {"value_base64": "/wA="})

    @settings(deadline=None)
    @given(st.binary())
    def test_nothing_is_lost(self, data: bytes) -> None:
        """A script would read other bytes than those that were stored."""
        said = json.loads(json.dumps(json_of("value", data)))
        if "value" in said:
            self.assertEqual(said["value"].encode(), data)
        else:
            self.assertEqual(base64.b64decode(said["value_base64"], validate=True), data)


class PrinterTests(SynchronousTestCase):
    """Standard output and standard error."""

    def test_line(self) -> None:
        """A value would be mixed up with what is said about it."""
        console = Console(self)
        Printer(as_json=False).line("caf\u00e9")
        Printer(as_json=False).line()
        self.assertEqual((console.out, console.err), ("caf\u00e9\n\n", ""))

    def test_object(self) -> None:
        """A script could not read the answer line by line, or from a terminal without UTF-8."""
        console = Console(self, encoding="ascii")
        Printer(as_json=True).object({"value": "caf\u00e9\n\x1b", "version": 7})
        self.assertEqual(console.out.count("\n"), 1)
        self.assertTrue(console.out.isascii())
        self.assertNotIn("\x1b", console.out)
        self.assertEqual(json.loads(console.out), {"value": "caf\u00e9\n\x1b", "version": 7})

    def test_raw(self) -> None:
        """A file stored as a value would not come out as it went in."""
        console = Console(self)
        Printer(as_json=False).raw(b"\x00\xff\r\n\x1b")
        self.assertEqual(console.raw, b"\x00\xff\r\n\x1b")

    def test_error(self) -> None:
        """An error would be taken for output, or be many lines in a log."""
        console = Console(self)
        Printer(as_json=False).error("first\n  second\r\nthird")
        self.assertEqual((console.out, console.err), ("", "kvcli: first second third\n"))

    def test_error_from_elsewhere(self) -> None:
        """A node's error text, which anybody's node may have sent, could drive one's terminal."""
        console = Console(self)
        Printer(as_json=False).error("bad \x1b[2J\x9b2J news")
        self.assertNotIn("\x1b", console.err)
        self.assertNotIn("\x9b", console.err)

    def test_terminal_without_unicode(self) -> None:
        """Text that the terminal cannot show would be a traceback, with the code of "not found"."""
        console = Console(self, encoding="ascii")
        Printer(as_json=False).line("caf\u00e9")
        self.assertTrue(console.out.startswith("caf"))


class TableTests(SynchronousTestCase):
    """Tables."""

    def test_alignment(self) -> None:
        """Numbers could not be compared at a glance."""
        lines = table(
            ("NAME", "KEYS", "SHARE", "WHY"),
            [("a", "7", "33.3%", "-"), ("node-10", "1,000", "100.0%", "no: 9 lives")],
        )
        self.assertEqual(
            lines,
            [
                "NAME      KEYS   SHARE  WHY",
                "a            7   33.3%  -",
                "node-10  1,000  100.0%  no: 9 lives",
            ],
        )

    def test_missing_numbers(self) -> None:
        """A member that does not answer would shift the column of numbers to the other side."""
        lines = table(("N", "KEYS"), [("a", "-"), ("b", "12")])
        self.assertEqual(lines, ["N  KEYS", "a     -", "b    12"])

    def test_seconds_are_numbers(self) -> None:
        """Uptimes would be ragged."""
        lines = table(("N", "UP"), [("a", "5 s"), ("b", "1,000 s")])
        self.assertEqual(lines, ["N       UP", "a      5 s", "b  1,000 s"])

    def test_no_rows(self) -> None:
        """An empty list would be a traceback."""
        self.assertEqual(table(("A", "B"), []), ["A  B"])

    @settings(deadline=None)
    @given(st.lists(st.tuples(*[st.text("ab19-%,. s", max_size=8)] * 3), max_size=5))
    def test_columns(self, rows: list[tuple[str, str, str]]) -> None:
        """A cell would stand under another column's head."""
        marked = [tuple(f"<{cell}>" for cell in row) for row in rows]
        lines = table(("<A>", "<B>", "<C>"), marked)
        self.assertEqual(len(lines), len(rows) + 1)
        for column in range(3):
            starts = {_place(line, "<", column) for line in lines}
            self.assertEqual(len(starts), 1, lines)


def _place(text: str, mark: str, number: int) -> int:
    """Where the *number*-th *mark* stands in *text*."""
    place = -1
    for _ in range(number + 1):
        place = text.index(mark, place + 1)
    return place
