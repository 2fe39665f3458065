"""One loss a file. All take scores in [0, 1] and return a scalar to minimise."""
