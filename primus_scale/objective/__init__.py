"""The PRIMUS objective: positives and keys of each term, contrast (InfoNCE), loss."""
