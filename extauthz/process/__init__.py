"""How this program runs as processes: the collector of cycles, and what a child process needs."""
