"""API management for a service mesh: who may call which API, and how often.

The way of a request is the order of the packages: a door reads the wire into one
neutral value (`envoy`), `policy` decides on it against a `catalog` snapshot and
`counters`, and `answers` says what the client gets.
"""
