"""What everybody knows: cells, records, names, files, text. Imports nothing else of the program."""
