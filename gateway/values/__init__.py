"""Values as they come in texts: JSON, the numbers of JavaScript, and what is said of those that cannot be used."""
