"""Frozen teachers over window shards, the order of packing, and packing into blocks."""
