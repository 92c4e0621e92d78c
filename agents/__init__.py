"""Agents, one folder a family. To add one: its file, and a line in `common.foundation.registry`."""
