"""Who may come in: so far, how addresses, hosts and origins are read."""
