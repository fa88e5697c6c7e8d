"""What runs in the processes of a cell: the only importer of torch."""
