"""The API of the admin listener: what each endpoint asks the processes that decide, and answers."""
