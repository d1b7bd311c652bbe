"""What is written to the database, each inside the caller's transaction."""
