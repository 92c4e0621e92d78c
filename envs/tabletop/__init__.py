"""The table, arm and cameras that arm worlds share."""
