"""What a study's predictions say: scores, intervals, comparisons, selection. No torch."""
