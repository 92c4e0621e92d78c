"""VQ-VAE: an image as an 8 x 8 grid of codes, flattened to 1024 numbers (spec: encoders 7)."""
