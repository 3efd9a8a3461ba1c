"""Reads catalogs from documents, OpenAPI and files; a refresher keeps the current one in force."""
