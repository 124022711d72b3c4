"""kvtwist: a distributed key-value store for people who live in Python.

Start nodes with ``twistd -n kvnode``, talk to them with ``kvcli`` or `kvtwist.client.Client`, or
run one inside your own Twisted program with `kvtwist.service.Node`.
"""

from importlib.util import find_spec

__version__ = "0.1.0"


def is_compiled() -> bool:
    """Whether the modules that every request goes through were compiled when this was installed
    (``KVTWIST_COMPILE=1 pip install``)."""
    spec = find_spec("kvtwist.core.ring")  # whose package has nothing in it: that is imported
    return spec is not None and not str(spec.origin).endswith(".py")


def software() -> str:
    """The version, for people, and whether it is compiled."""
    return f"{__version__} (compiled)" if is_compiled() else __version__
