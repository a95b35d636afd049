"""The data card of shard folders: figures (``stats``), what to look at twice, and the page."""
