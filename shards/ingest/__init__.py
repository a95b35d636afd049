"""Raw recordings to window shards."""
