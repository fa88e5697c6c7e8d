"""Is the cell what its label says: probes after the window, and a check for every claim."""
