"""Files on any storage that fsspec knows: atomic writes, retries, safe names, untrusted content."""
