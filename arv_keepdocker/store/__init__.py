"""How the bytes of an image get to Arvados: block by block, or through arv-put."""
