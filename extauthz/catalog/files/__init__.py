"""A catalog source: files and folders, read in a thread or, when large, by a child process."""
