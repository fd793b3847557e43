"""Results: tables, findings in words, pictures and the report. Reads a study directory; imports no torch."""
