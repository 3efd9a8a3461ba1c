"""The values that policy reasons with. No wire format and no I/O in here."""
