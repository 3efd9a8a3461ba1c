"""Where requests are counted: the stores, and the one arithmetic that all of them share."""
