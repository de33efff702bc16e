"""What the servers on one log tell each other beside the log, and the NATS server of one machine."""
