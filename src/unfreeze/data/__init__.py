"""From files to views: sources, catalog, splits, regimes, order, and (the only part with torch) views."""
