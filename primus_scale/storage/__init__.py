"""Any fsspec place: read, written whole or not at all, waited for; names, YAML, foreign bytes."""
