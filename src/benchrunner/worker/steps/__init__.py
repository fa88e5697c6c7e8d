"""One step's work: its data, its tokens and FLOPs, the training loop, decoding."""
