"""A stand-in for WSO2 API Manager on loopback, for the demonstration, tests and benchmarks."""
