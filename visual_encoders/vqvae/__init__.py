"""VQ-VAE (van den Oord et al. 2017): an image as a grid of codes, flattened: 8 x 8 x 16 numbers."""
