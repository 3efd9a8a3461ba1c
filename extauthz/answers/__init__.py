"""What the client and the upstream get to see of a decision, the same at either door.

Everything here is neutral: a status, header fields and a body. The doors encode it.
"""
