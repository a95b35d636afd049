"""Checkpoints: their folder and manifest, their copies on storage, and the owner of those."""
