"""Shards and their index: written, checked, verified."""
