"""Who may come in, for how long, and how much they may do: from a request's address to a connection's lease."""
