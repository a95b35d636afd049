"""Checkpoints: their folder and manifest, their copies on storage and who owns those."""
