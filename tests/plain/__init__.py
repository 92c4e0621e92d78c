"""Plain reference implementations that the fast paths are held to."""
