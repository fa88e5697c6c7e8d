"""How a cell's job is started, watched and ended."""
