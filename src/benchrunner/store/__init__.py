"""The files of a sweep's directory, read and written."""
