"""The verbs: what the command line can, in a line of Python. Each is thin; the rooms below do the work."""
