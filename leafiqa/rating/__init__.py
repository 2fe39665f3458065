"""Rating by eye: a page on this machine, answers on disk, a human scale out of them, and when to stop."""
