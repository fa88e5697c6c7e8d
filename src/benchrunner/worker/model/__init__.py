"""The decoder of every model family, its cache and its weights."""
