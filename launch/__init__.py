"""How runs start: Ray, the deepspeed launcher, benchmarks."""
