"""Frozen teachers over window shards, the one shuffle, and packing into blocks."""
