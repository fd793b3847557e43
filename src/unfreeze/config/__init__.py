"""The study file: what can be asked for, and what it resolves to. No torch."""
