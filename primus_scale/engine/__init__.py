"""DeepSpeed: the optimizer's step, and the files that ZeRO writes."""
