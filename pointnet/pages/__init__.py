"""Pages: what people look at."""
