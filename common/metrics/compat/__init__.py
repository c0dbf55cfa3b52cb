"""mAP and curves as the reference repositories compute them, by name."""
