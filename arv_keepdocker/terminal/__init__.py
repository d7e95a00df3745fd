"""What a person sees on the terminal, and how text is written to the standard streams."""
