"""What runs under torchrun: the only importer of torch."""
