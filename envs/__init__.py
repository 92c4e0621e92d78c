"""Worlds. To add one: its folder, and a line in `common.foundation.registry`."""

from envs.make import register

register()
