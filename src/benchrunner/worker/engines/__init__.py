"""From a cell to a model that can step: torch's own means, or Lightning Fabric."""
