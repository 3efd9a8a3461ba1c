"""Where catalogs come from: documents, OpenAPI, files, and the refresher that holds one in force."""
