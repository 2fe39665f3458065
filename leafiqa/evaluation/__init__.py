"""Compare scores with human opinion: correlations with intervals, significance, tables of MOS."""
