"""From an image to a batch: preprocessing, augmentation, the order of examples, loading."""
