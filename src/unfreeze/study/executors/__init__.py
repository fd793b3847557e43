"""Executors of cells."""
