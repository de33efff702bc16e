"""The closed part of the log: partitions in files of their own, and how the log becomes them."""
