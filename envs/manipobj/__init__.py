"""An arm and cubes: PPP-Cube, Stack-Cube, sorting."""
