"""Settings: their schema, their overrides, and the entry points that read them."""
