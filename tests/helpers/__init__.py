"""Worlds, data and comparisons that several tests share."""
