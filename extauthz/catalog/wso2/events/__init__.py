"""The events of an API Manager: what was changed or revoked, told over AMQP 0-9-1 as it happens."""
