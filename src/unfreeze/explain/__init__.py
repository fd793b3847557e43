"""Where the best model looks, and which images it gets wrong."""
