"""YAML and JSON that people write, read into checked values; every fault has file and line."""
