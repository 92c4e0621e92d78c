"""Errors, files, processes, memory, devices, names: what knows nothing of the rest."""
