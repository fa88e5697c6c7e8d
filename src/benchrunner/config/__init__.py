"""Overrides → resolved configurations: the schema, its keys, the product, and Hydra behind its adapter."""
