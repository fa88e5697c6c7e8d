"""What an attempt left behind → a verdict, its numbers, its record."""
