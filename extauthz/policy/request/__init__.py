"""What a decision reads of a request: parameters, cookies, values and the client's address."""
