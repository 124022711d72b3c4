"""kvtwist: a distributed key-value store for people who live in Python.

Start nodes with ``twistd -n kvnode``, talk to them with ``kvcli`` or `kvtwist.client.Client`, or
run one inside your own Twisted program with `kvtwist.service.Node`.
"""

__version__ = "0.1.0"
