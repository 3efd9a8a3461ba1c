"""Which API and resource a path belongs to: hosts, segments, templates and their trees."""
