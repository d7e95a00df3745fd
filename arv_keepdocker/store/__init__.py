"""Uploads images to Arvados: block by block, or through arv-put."""
