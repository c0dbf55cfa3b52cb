"""What ``main.py doctor`` finds out: what a sweep needs, what is here, what it will cost."""
