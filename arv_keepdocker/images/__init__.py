"""Images as such: their names, platforms, configurations and layers, and the archives that hold them."""
