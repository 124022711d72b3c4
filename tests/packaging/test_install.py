"""Both ways to install kvtwist, into an environment of their own, as a user has it (T3).

The environment gets its dependencies from the package index, so these tests need one. It is made
once, by whichever test comes first; every test leaves it without kvtwist.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

CHECKOUT = Path(__file__).resolve().parents[2]
INGREDIENTS = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "kvtwist", "twisted")

COMMAND_SECONDS_MAX = 300


class Environment:
    """A virtual environment, a copy of what packages are built from, and a wheel built from it.

    :ivar copy: the copy; building leaves files behind, and the checkout is to stay clean.
    :ivar wheel: the wheel.
    :ivar elsewhere: an empty directory, which commands run in: Python looks for modules in the
        current one too, and must not find there what is missing where it was installed.
    """

    def __init__(self, root: Path) -> None:
        self._venv = root / "venv"
        self.elsewhere = root / "elsewhere"
        self.elsewhere.mkdir()
        self.copy = root / "copy"
        self.copy.mkdir()
        for name in INGREDIENTS:
            _copy(CHECKOUT / name, self.copy / name)
        _run([sys.executable, "-m", "venv", self._venv], self.elsewhere)
        self.run("python", "-m", "pip", "wheel", "--no-deps", "--wheel-dir", root, self.copy)
        (self.wheel,) = root.glob("*.whl")
        # The dependencies come with the first install, and stay.
        self.install(self.wheel)
        self.uninstall()

    def run(self, script: str, *arguments: str | Path) -> str:
        """What the environment's *script* prints, on either stream; it must end well."""
        return _run([self._venv / "bin" / script, *arguments], self.elsewhere)

    def evaluate(self, imports: str, expression: str) -> str:
        """*expression*, as the environment's Python prints it, after importing *imports*."""
        return self.run("python", "-c", f"import {imports}\nprint({expression})").strip()

    def install(self, *arguments: str | Path) -> None:
        """``pip install``."""
        self.run("python", "-m", "pip", "install", *arguments)

    def uninstall(self) -> None:
        """``pip uninstall kvtwist``."""
        self.run("python", "-m", "pip", "uninstall", "--yes", "kvtwist")


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        # Without the caches: what Twisted remembers of the checkout is not true of the copy.
        ignore = shutil.ignore_patterns("__pycache__", "dropin.cache")
        shutil.copytree(source, target, ignore=ignore)
    else:
        shutil.copy(source, target)


def _run(command: Sequence[str | Path], cwd: Path) -> str:
    """Run *command* as from a fresh shell: no variable points it to another Python's modules."""
    outside = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYTHON") and name not in ("VIRTUAL_ENV", "PIP_TARGET", "PIP_USER")
    }
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**outside, "PYTHONNOUSERSITE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=COMMAND_SECONDS_MAX,
    )
    if done.returncode:
        line = " ".join(map(str, command))
        raise AssertionError(f"{line}\nended with {done.returncode}:\n{done.stdout}")
    return done.stdout


# Not `setUpClass`: trial does not call it.
@functools.cache
def _environment_or_failure() -> Environment | AssertionError:
    root = tempfile.mkdtemp(prefix="kvtwist-install-")
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    try:
        return Environment(Path(root).resolve())
    except AssertionError as failure:
        return failure


def environment() -> Environment:
    """The one that all tests share; deleted when the runner ends. Not tried again if it fails."""
    made = _environment_or_failure()
    if isinstance(made, AssertionError):
        raise made
    return made


class WheelContentTests(SynchronousTestCase):
    """What is in the wheel, which is what a user downloads."""

    def names(self) -> set[str]:
        """The wheel's files."""
        with zipfile.ZipFile(environment().wheel) as wheel:
            return set(wheel.namelist())

    def test_plugin(self) -> None:
        """T3: the plugin is in no package that could be found, so it is easily left out, and
        ``twistd kvnode``, the way to start a node, is then an unknown command."""
        self.assertIn("twisted/plugins/kvtwist_plugin.py", self.names())

    def test_nothing_of_twisted(self) -> None:
        """T3: any other file there, an ``__init__.py`` above all, would overwrite Twisted's own,
        and be missing after uninstall: no ``twistd`` in that environment would start again."""
        theirs = {name for name in self.names() if name.startswith("twisted/")}
        self.assertEqual(theirs, {"twisted/plugins/kvtwist_plugin.py"})

    def test_whole_package(self) -> None:
        """A module that is left out works for us, in the checkout, and fails for every user."""
        copy = environment().copy
        expected = {
            str(path.relative_to(copy))
            for path in (copy / "kvtwist").rglob("*")
            if path.suffix in (".py", ".typed")
        }
        self.assertIn("kvtwist/py.typed", expected)
        self.assertEqual({name for name in self.names() if name.startswith("kvtwist/")}, expected)

    def test_nothing_else(self) -> None:
        """A top-level ``tests`` or ``benchmarks`` in site-packages would shadow the user's own."""
        tops = {name.split("/")[0] for name in self.names()}
        tops = {name for name in tops if not name.endswith(".dist-info")}
        self.assertEqual(tops, {"kvtwist", "twisted"})


class InstallTests(SynchronousTestCase):
    """kvtwist installed and removed, each time asked from a directory that has nothing to do
    with it."""

    def installed(self, *arguments: str | Path) -> None:
        """kvtwist, by ``pip install`` with *arguments*, until the test ends."""
        environment().install(*arguments)
        # Also when the test has done it already: pip does not mind.
        self.addCleanup(environment().uninstall)

    def assert_usable(self, directory: str) -> None:
        """Everything that a user types is there, and it is the kvtwist in *directory*."""
        run, evaluate = environment().run, environment().evaluate
        where = Path(evaluate("kvtwist", "kvtwist.__file__"))
        self.assertEqual(str(where.parents[1]), directory)
        plugin = evaluate("twisted.plugins.kvtwist_plugin as it", "it.__file__")
        self.assertEqual(plugin, str(where.parents[1] / "twisted/plugins/kvtwist_plugin.py"))
        self.assertIn("kvnode", run("twistd", "--help"))
        self.assertIn("--peers", run("twistd", "kvnode", "--help"))
        self.assertIn("--peers", run("python", "-m", "kvtwist", "--help"))
        self.assertIn("Usage: kvcli", run("kvcli", "--help"))

    def assert_twisted_whole_without_it(self) -> None:
        """Uninstalling kvtwist takes its own files and no other; ``twistd`` works without it."""
        environment().uninstall()
        plugins = Path(self.site_packages(), "twisted/plugins/__init__.py")
        self.assertTrue(plugins.exists(), f"{plugins} is gone")
        usage = environment().run("twistd", "--help")
        self.assertIn("Commands:", usage)
        self.assertNotIn("kvnode", usage)
        self.assertNotIn("Traceback", usage)

    def site_packages(self) -> str:
        """Where the environment keeps what is installed in it."""
        return environment().evaluate("sysconfig", "sysconfig.get_path('purelib')")

    def test_wheel(self) -> None:
        """T3: who installs a release gets ``twistd kvnode`` from wherever they are, and who
        uninstalls it keeps the Twisted that they had."""
        self.installed("--no-deps", environment().wheel)
        self.assert_usable(self.site_packages())
        self.assert_twisted_whole_without_it()

    def test_editable(self) -> None:
        """T3: who works on kvtwist has ``twistd kvnode`` outside the checkout too. Without
        ``package_dir`` in ``setup.py`` the package is found there and the plugin is not."""
        self.installed("--no-deps", "--editable", environment().copy)
        self.assert_usable(str(environment().copy))
        self.assert_twisted_whole_without_it()
