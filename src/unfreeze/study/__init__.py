"""A study: its plan, its cells, and running them."""
