"""Tables of files: reading them, their columns, labels and paths."""
