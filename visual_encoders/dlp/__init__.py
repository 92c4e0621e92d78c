"""Deep Latent Particles: an image as an unordered set of particles (spec: visual_encoders 2 to 6).

A particle is a row of numbers: position (row, column), scale logits (row, column), depth,
transparency, appearance features. `model.DLP` puts the parts together.
"""
