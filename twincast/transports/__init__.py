"""The edges: bytes in, a call of the hub; frames out. None knows another, and none knows the journal."""
