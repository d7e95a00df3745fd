"""What Arvados records of images, and how it is asked and told."""
