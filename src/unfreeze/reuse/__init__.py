"""Frozen work done once: inference engines, stored activations, what each costs and what it saves."""
