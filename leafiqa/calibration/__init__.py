"""Few-shot calibration: put a student on the human scale with a small number of labelled images."""
