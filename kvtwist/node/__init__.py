"""The shells: what a node does with the network, thin and in Twisted.

The rules that they follow stand in `kvtwist.core`, the words that they say in `kvtwist.wire`.
`kvtwist.service` puts them together.

* What comes in: `server` has the connections, which `limits` and `budget` bound; `router` and
  `batches` bring what is about data to who leads it (`leaders`).
* The cluster: `cluster` is what this node knows of it, `founder` founds it, `peers` are the links
  to the other nodes.
* The data: `partitions` says what is asked of it, and is that in memory; `durable` is that on
  disks. `operations` are the commands as entries of a log, `waiting` who waits for one, `results`
  for many.
* On disks: `loading` begins with what is there; `replicas` drives each `replica` in turns, and
  keeps the order of safety; `proposals`, `reads`, `kept`, `compaction` and `expiry` are a replica's
  parts. `post` carries messages. `leadership` says who should lead, `meta` holds the map of the
  cluster.
* Who is behind: `followers` and `departures` send a snapshot, `arrivals` and `installing` take one
  in, `outgoing` reads one; so do `backups`, and `restoring` begins with what they have kept.
* `description` is what a node says of all that, for people.
"""
