"""OGBench's own environments and datasets."""
