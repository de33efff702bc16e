"""The shared log: several servers on one stream of NATS JetStream, with the same positions on each.

One message of the stream is one commit of one server. Entries get their seqs where they are folded, by counting, so
servers agree on nothing and count the same; what a message stands for is decided there too, by all alike (`fold`).
Each server keeps an SQLite file as its copy. docs/cluster.md has the reasons and measurements.
"""
