"""Score many files: find them, decode ahead, write rows as they come, go on after an interrupt."""
