"""What a person sees, and how text gets to where it is read."""
