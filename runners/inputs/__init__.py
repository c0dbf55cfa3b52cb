"""What views read: cached features, or images and token ids."""
