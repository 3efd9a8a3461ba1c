"""Puts the parts together: the only place that names implementations.

`core` gives what decides, for any door or command; `counting` the store that it counts in;
`answers` how answers look; `service` adds doors, hosts and the life of a service.
"""
