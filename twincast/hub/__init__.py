"""The one path of every change: submit, append, apply, offer."""
