"""A study: its plan, its cells, and running what is missing."""
