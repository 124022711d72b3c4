"""How ``kvcli`` prints: for people, or as JSON."""

from __future__ import annotations

import base64
import json
import sys
import unicodedata
from collections.abc import Sequence
from typing import Any, TextIO


class Printer:
    """Standard output and standard error."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def line(self, text: str = "") -> None:
        """A line for people."""
        _print(text, sys.stdout)

    def object(self, said: dict[str, Any]) -> None:
        """One JSON object, on one line."""
        print(json.dumps(said))

    def raw(self, data: bytes) -> None:
        """Bytes, as they are."""
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def error(self, message: str) -> None:
        """One line on standard error."""
        line = "".join(map(_harmless, " ".join(message.split())))
        _print(f"kvcli: {line}", sys.stderr)


def _print(text: str, stream: TextIO) -> None:
    """Print, with escapes for what the terminal's encoding does not have."""
    encoding = stream.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream)


def text_of(data: bytes) -> str:
    """*data* as one can show it on a terminal: text if it is UTF-8, else with Python's escapes.

    Control characters other than line end and tab are escaped too: a stored value must not be able
    to drive somebody's terminal.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return repr(data)[2:-1]
    return "".join(map(_harmless, text))


def _harmless(character: str) -> str:
    if character in "\n\t" or unicodedata.category(character) != "Cc":
        return character
    return character.encode("unicode_escape").decode()


def json_of(name: str, data: bytes) -> dict[str, str]:
    """*data* as a JSON member: text under *name* if it is UTF-8, else base64 under another name."""
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


def counted(number: int, what: str) -> str:
    """*number* of *what*, in the plural unless it is one."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: columns as wide as their widest cell, numbers to the right."""
    columns = list(zip(head, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    numeric = [all(_is_number(cell) for cell in column[1:]) for column in columns]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in [head, *rows]
    ]


def _is_number(cell: str) -> bool:
    return cell == "-" or cell.rstrip(" %s").replace(",", "").replace(".", "").isdigit()
