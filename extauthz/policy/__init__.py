"""Decides on a request: the pipeline, and a module or package for each of its steps."""
