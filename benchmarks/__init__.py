"""Measure twincast beside its peers: the same load, on the same machine, in the same run."""
