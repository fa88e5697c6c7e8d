"""Planted faults, installed from outside: deaths, and lies that only a check can tell."""
