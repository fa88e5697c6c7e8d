"""What a cell measures: training, forward passes, generation, parity."""
