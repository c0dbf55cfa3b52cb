"""From codes to metrics.json: encoding, counting, zero-shot measures."""
