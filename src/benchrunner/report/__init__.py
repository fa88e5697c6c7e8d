"""Records → tables: as data, then as CSV, Markdown, HTML and on the terminal."""
