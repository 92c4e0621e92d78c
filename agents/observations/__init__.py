"""Observations: raw rows of a world as networks see them, and back."""
