"""Read tables of files: their format, columns, labels and paths."""
