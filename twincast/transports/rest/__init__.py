"""REST by resource: each module has the operations of one, and the shapes of their answers."""
