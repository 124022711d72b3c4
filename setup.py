"""The part of the packaging that `pyproject.toml` cannot say; everything else is there.

``packages`` is what is found plus one name that cannot be found: ``twisted.plugins`` is a directory
of plugins that Twisted merges into its own package, not a package of ours. There must never be an
``__init__.py`` in it or above it: that would replace Twisted's own, and take it away on uninstall.

``package_dir`` says what is the default anyway, and changes how an editable install works: with it
the checkout goes on ``sys.path``, where Twisted looks for plugins; without it setuptools writes an
import hook, which Twisted's search does not ask, and ``twistd`` has no ``kvnode`` outside the
checkout.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["kvtwist", "kvtwist.*"]), "twisted.plugins"],
    package_dir={"": "."},
)
