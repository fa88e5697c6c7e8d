"""Planted faults: deaths, and lies that only a check can tell."""
