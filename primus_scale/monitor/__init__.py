"""Output of a run for people: TensorBoard log, measures, pictures, pages, progress, provenance."""
