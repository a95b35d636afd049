"""Speed and few-shot benchmarks, run from a checkout: each is a module with its own command."""
