"""What operators see of decisions. Nothing in here can change one."""
