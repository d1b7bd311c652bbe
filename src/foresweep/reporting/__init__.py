"""What people read: tables, charts and reports."""
