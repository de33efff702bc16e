"""Who may come in, for how long, and how much they may do: from the address of a request to the lease of a connection."""
