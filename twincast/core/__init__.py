"""The pure part: no event loop, no sockets, no files, no clock."""
