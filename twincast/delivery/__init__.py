"""What each client is sent, in order, as far as it takes it; pure."""
