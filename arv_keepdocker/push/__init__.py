"""What happens to an image, from the request to the outcome. Begin with `story`."""
