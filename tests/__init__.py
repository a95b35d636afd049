"""The tests. A package of its own, because some packages install a ``tests`` next to theirs."""
