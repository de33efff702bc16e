"""The wheel, installed by pip where nothing else is: as on a device, then as for a server. See `scripts/smoke`."""
