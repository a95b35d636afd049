"""Shard folders: their index and records, the order of windows in a run, and the reader.

A shard folder is any fsspec URL that holds ``index.json`` and the tar files it names. Read
``index`` first, then ``record`` (what lies in a tar), ``schedule`` (which windows form which
batch) and ``reader`` (turns the two into batches). ``storage`` is the only module here that
touches a file system. Shards are written by ``shards.write.writer``.
"""
