"""What this host is, and who uses its devices."""
