"""An arm with cube, buttons, drawer and window."""
