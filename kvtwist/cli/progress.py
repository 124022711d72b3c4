"""A line that says how far something is, on a terminal; nothing elsewhere."""

from __future__ import annotations

from typing import TextIO

BAR_COLUMNS = 30
LINE_COLUMNS = 79


class Progress:
    """One line of *stream* that is written over and over."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._shown = ""

    def show(self, text: str) -> None:
        """Show *text* instead of what is there."""
        text = text[:LINE_COLUMNS]
        if self._is_terminal and text != self._shown:
            self._write(f"\r{text:<{len(self._shown)}}")
            self._shown = text

    def show_share(self, done: int, total: int, text: str) -> None:
        """Show a bar, of which *done* of *total* is full, and *text*."""
        share = min(1.0, done / total) if total else 1.0
        full = int(share * BAR_COLUMNS)
        self.show(f"[{'#' * full}{'.' * (BAR_COLUMNS - full)}] {share:4.0%} {text}")

    def clear(self) -> None:
        """Leave nothing behind."""
        if self._shown:
            self._write(f"\r{'':<{len(self._shown)}}\r")
            self._shown = ""

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
