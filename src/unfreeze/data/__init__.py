"""From files to images that are used: sources, decoding, the data check, catalog, split, subsets. No torch."""
