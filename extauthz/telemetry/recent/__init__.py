"""What was decided of late, held in bounded memory for the admin API."""
