"""From an image to a batch: preprocessing, augmentation, order of examples, loading."""
