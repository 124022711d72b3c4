"""What a table is worth nothing without: on what, and of what, it was measured."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import twisted

import kvtwist

_HERE = Path(__file__).resolve().parent


_DIRECTORIES = ("--out", "--directory")
_PROGRAMS = {
    "go": (r"go([\d.]+)", "go", "version"),
    "redis": (r"v=([\d.]+)", "redis-server", "--version"),
    "etcd": (r"etcd Version: ([\d.]+)", "etcd", "--version"),
}


def facts(*programs: str) -> dict[str, str]:
    """Name and value of each fact, in the order in which to show them.

    :param programs: whose versions belong to them: ``go``, ``redis``, ``etcd``.
    """
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": _command(),
        "kvtwist": f"{kvtwist.software()} {_commit()}".strip(),
        "cpu": _cpu(),
        "cores": str(os.cpu_count()),
        "load before": f"{os.getloadavg()[0]:.1f}",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}, {_origin()}",
        "twisted": twisted.__version__,
        **{name: _found(*_PROGRAMS[name]) for name in programs},
    }


def _origin() -> str:
    """Where Python itself is from: one that was built without profiles is slower."""
    return "the distribution's" if Path(sys.base_prefix) == Path("/usr") else "built by hand"


def _command() -> str:
    """What was typed, without directories: they say nothing to anybody else."""
    words = ["python", f"benchmarks/{Path(sys.argv[0]).name}"]
    is_directory = False
    for word in sys.argv[1:]:
        option, has_value, _ = word.partition("=")
        names_directory = option in _DIRECTORIES
        words.append(f"{option}=DIR" if names_directory and has_value else word)
        if is_directory:
            words[-1] = "DIR"
        is_directory = names_directory and not has_value
    return shlex.join(words)


def _cpu() -> str:
    """The model's name; Python does not know it on Linux."""
    try:
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _commit() -> str:
    """The commit that is checked out, and whether there are changes; nothing without git."""
    git = ("git", "-C", str(_HERE), "--no-optional-locks")
    commit = _output(*git, "rev-parse", "--short", "HEAD").strip()
    if not commit:
        return ""
    is_changed = bool(_output(*git, "status", "--porcelain", "--", str(_HERE.parent / "kvtwist")))
    return f"({commit}{', with changes' if is_changed else ''})"


def _found(pattern: str, *command: str) -> str:
    found = re.search(pattern, _output(*command))
    return found[1] if found else "not installed"


def _output(*command: str) -> str:
    """What a command prints; nothing if it cannot be run, or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
