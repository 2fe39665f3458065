"""Human scores: tables of MOS, known data sets, and splits that keep groups together."""
