"""Answers, figures and pages for people. No torch."""
