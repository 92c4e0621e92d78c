"""Deep Latent Particles (Daniel and Tamar 2022, 2023): an image as an unordered set of particles.

A particle is a row of numbers: position (row, column), scale logits (row, column), depth,
transparency, appearance features. `model.DLP` puts the parts together.
"""
