"""Who runs cells: child processes."""
