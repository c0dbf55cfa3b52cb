"""From a dataset's official files to rows that can be trained on: prepare, verify, protocols."""
