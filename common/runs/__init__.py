"""Run folders: settings, checkpoints, metrics, and the agents in them."""
