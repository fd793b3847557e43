"""Backbones in stages, their weights, and networks divided at a cut."""
