"""Tells ``twistd`` that there is a ``kvnode``.

One literal, because whatever is raised here is swallowed by Twisted's search for plugins: the
command would be missing without a word.
"""

from twisted.application.service import ServiceMaker

kvnode = ServiceMaker(
    "kvtwist node",
    "kvtwist.tap",
    "A node of a kvtwist cluster: a sharded key-value store.",
    "kvnode",
)
