"""EC-Diffuser: imitation by diffusion of windows of actions and entity sets."""
