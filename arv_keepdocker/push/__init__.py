"""What happens to one image, from the request to the outcome: `story` tells it."""
