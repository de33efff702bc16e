"""Where entries become durable and get their positions: one interface, several kinds of journal."""
