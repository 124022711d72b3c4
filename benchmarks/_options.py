"""What scripts have on their command lines, and say while they run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"
SECONDS_MIN, SECONDS_MAX = 0.05, 60.0


def seconds(text: str) -> float:
    """The length of a measurement, within reason.

    :raises argparse.ArgumentTypeError: when it is not.
    """
    length = float(text)
    if not SECONDS_MIN <= length <= SECONDS_MAX:
        raise argparse.ArgumentTypeError(f"{SECONDS_MIN:g} to {SECONDS_MAX:g}, not {text}")
    return length


def progress(text: str) -> None:
    """Say where the run is, if somebody watches."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
