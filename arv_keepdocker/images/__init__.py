"""Images: their names, platforms, configurations and layers, and the archives that hold them."""
