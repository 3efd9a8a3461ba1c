"""Tests of the catalog source for WSO2 API Manager, against the stand-in."""
