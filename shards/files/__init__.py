"""Files as other people write them: where they lie, and tables, texts, videos and Aria's VRS."""
