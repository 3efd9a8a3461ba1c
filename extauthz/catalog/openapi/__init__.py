"""What an OpenAPI document says about access, as a catalog can hold it."""
