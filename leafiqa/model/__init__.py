"""The student network, its preprocessing, and the checkpoint that holds both."""
