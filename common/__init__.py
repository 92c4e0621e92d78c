"""What every part shares: configuration, buffer, training and evaluation loops, files."""
