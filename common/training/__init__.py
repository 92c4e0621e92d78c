"""Training: one loop, and the ways to compute its updates."""
