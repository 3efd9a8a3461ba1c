"""Reads parts of a request: query parameters, cookies, values and the client's address."""
