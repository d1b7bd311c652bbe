"""The database itself: its tables, and SQLite or PostgreSQL below them."""
