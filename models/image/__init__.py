"""Methods published for image retrieval, one file each."""
