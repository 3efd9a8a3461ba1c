"""The commands of an emergency: block, unblock, revoke, and the list of what is in force."""
