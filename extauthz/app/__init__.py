"""Puts the parts together: the only place that names implementations.

`core` makes the pipeline, for any door or command; `counting` makes its counter store; `answers`
the style of its answers; `service` adds doors, hosts and the life of a service.
"""
