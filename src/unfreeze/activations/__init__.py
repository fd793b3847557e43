"""Frozen work: which activations there are, what they cost, the engines that compute them, and their batches."""
