"""A study of fine-tuning strategies, data regimes and seeds in one command."""
