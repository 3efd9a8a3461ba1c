"""Tests of the door for checks over HTTP, without a network."""
