"""The network: backbones in stages, their weights, heads, what is frozen and what trains."""
