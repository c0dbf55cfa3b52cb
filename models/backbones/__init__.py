"""Pretrained encoders: image and text in, pooled and token features out."""
