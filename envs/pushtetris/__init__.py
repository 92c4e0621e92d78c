"""Pieces on a plane, pushed to their goal poses."""
