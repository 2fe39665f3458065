"""Comparing image generators: which is better, how sure, where it got worse; the best of several pictures."""
