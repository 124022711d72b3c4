"""The part of the packaging that `pyproject.toml` cannot say; everything else is there.

``packages`` is what is found plus one name that cannot be found: ``twisted.plugins`` is a directory
of plugins that Twisted merges into its own package, not a package of ours. There must never be an
``__init__.py`` in it or above it: that would replace Twisted's own, and take it away on uninstall.

``package_dir`` says what is the default anyway, and changes how an editable install works: with it
the checkout goes on ``sys.path``, where Twisted looks for plugins; without it setuptools writes an
import hook, which Twisted's search does not ask, and ``twistd`` has no ``kvnode`` outside the
checkout.

With ``KVTWIST_COMPILE=1`` in the environment the modules that every request goes through are
compiled by mypyc, out of the very same files, and installed beside them; that takes a C compiler
and two minutes. Never in an editable install: there, what is edited must be what runs.
"""

import os
import sys
import tempfile
from typing import Any

from setuptools import find_packages, setup

BUILDS = {"bdist_wheel", "build", "build_ext", "install"}
COMPILER = ["mypy>=1.18"]
COMPILED = {
    "core": "groups ring",
    "core/raft": "candidate configuration elections follower leader log messages progress quorum "
    "raft reads replication sense settings state",
    "core/state": "answers commands contents fields logtime machine operations ordered outcomes "
    "records sessions snapshot",
    "storage": "engine frames layout logs recent records states store",
    "wire": "applied boxes calls codec deadlines frequent intake limits once outbox raft "
    "seldom sending turn work",
    "node": "budget compaction durable expiry followers installing kept leaders leadership "
    "operations post proposals reads replica replicas results router turns waiting",
    "client": "boxes results sessions table",
}
"""By folder. Classes of Twisted's cannot be built upon by what is compiled, nor can what is
compiled be built upon by what is not: so the shells stay as they are."""

TYPES = """
[mypy]
ignore_missing_imports = True
follow_imports = silent

[mypy-twisted.*,zope.*]
follow_imports = skip
"""
"""How the compiler reads types. It may find Twisted or not: so it is never to look."""

is_wanted = os.environ.get("KVTWIST_COMPILE", "0") not in ("", "0")


def extensions() -> list[Any]:
    """What is to be compiled by the command that runs."""
    if not is_wanted or BUILDS.isdisjoint(sys.argv):
        return []  # pip asks first what is needed for it
    from mypyc.build import mypycify

    files = [
        f"kvtwist/{folder}/{name}.py"
        for folder, names in COMPILED.items()
        for name in names.split()
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".ini") as settings:
        settings.write(TYPES)
        settings.flush()
        made: list[Any] = mypycify(
            [f"--config-file={settings.name}", *files], opt_level="3", debug_level="0"
        )
    return made


setup(
    packages=[*find_packages(include=["kvtwist", "kvtwist.*"]), "twisted.plugins"],
    package_dir={"": "."},
    setup_requires=COMPILER if is_wanted else [],
    ext_modules=extensions(),
)
