"""What goes to Keep: blocks on their way, what is there already, and the notes of it."""
