"""What people read: tables of a comparison."""
