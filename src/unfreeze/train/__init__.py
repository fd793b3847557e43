"""One loop that trains any network on any inputs: it cannot tell pixels from activations."""
