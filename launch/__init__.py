"""How runs start: Ray, the deepspeed launcher, SLURM; preflight, the checks before a run."""
