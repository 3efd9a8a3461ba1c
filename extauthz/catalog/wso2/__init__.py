"""A catalog source: WSO2 API Manager, whose tables become a catalog document like any other."""
