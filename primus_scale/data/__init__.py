"""Shard folders: their index and records, the order of windows in a run, and the reader.

A shard folder is any fsspec URL that holds ``index.json`` and the tar files that it names. Read
``index`` first, then ``record`` (the content of a tar), ``schedule`` (which windows form which
batch) and ``reader`` (makes batches of the two). ``primus_scale.storage`` reads the files, and
``shards.write.writer`` writes shards.
"""
