"""The measured window: times, memory, the driver's view."""
