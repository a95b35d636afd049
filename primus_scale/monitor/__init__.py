"""What people look at: TensorBoard log, measures, pictures, pages, progress, provenance."""
