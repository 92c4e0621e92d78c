"""Rooms that every part shares, from errors and files up to tables and tools."""
