"""Explain the recommended model: where it looks, its worst mistakes, and labels to review."""
