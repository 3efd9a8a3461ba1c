"""Real message brokers for tests: Apache Qpid Broker-J, from whose ancestor WSO2's own descends."""
