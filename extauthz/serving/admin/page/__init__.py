"""The live page of the admin listener: HTML, CSS and JavaScript, served as they are."""
