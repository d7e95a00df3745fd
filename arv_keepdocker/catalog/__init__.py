"""What Arvados records about images: how to read it, and how to write it."""
