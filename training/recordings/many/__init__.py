"""Many recordings with one command: found by folders, globs and lists, and shared out over processes or machines."""
