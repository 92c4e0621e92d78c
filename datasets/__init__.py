"""Datasets: episodes recorded by scripted policies, kept one file each (`store`, `collection`)."""
