"""Image encoders: what turns frames into the particles or latents that agents see."""
